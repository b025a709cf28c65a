package sdp

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// session returns a description with these media.
func session(lines ...string) string {
	return "v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n" + strings.Join(lines, "\r\n") + "\r\n"
}

func parsed(t testing.TB, text string) *Description {
	t.Helper()
	d, err := Parse([]byte(text))
	require.NoError(t, err, text)
	return d
}

// media returns the m= lines and the lines below them, with LF as line end.
func media(d *Description) string {
	return strings.ReplaceAll(string((&Description{Media: d.Media}).Bytes()), "\r\n", " ")
}

// FS3, FS5: descriptions that do not follow RFC 8866 are read, and written as it requires.
func TestDescriptionsAreReadAsPeersWriteThem(t *testing.T) {
	const canonical = "v=0\r\no=a 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nb=AS:64\r\nt=0 0\r\na=x\r\nm=audio 4000 RTP/AVP 0 8\r\na=sendrecv\r\n"
	for name, text := range map[string]string{
		"as it should be":           canonical,
		"LF only":                   strings.ReplaceAll(canonical, "\r\n", "\n"),
		"CR only":                   strings.ReplaceAll(canonical, "\r\n", "\r"),
		"no last line end":          strings.TrimSuffix(canonical, "\r\n"),
		"no last line end, LF":      strings.TrimSuffix(strings.ReplaceAll(canonical, "\r\n", "\n"), "\n"),
		"blank lines":               "\r\n" + strings.ReplaceAll(canonical, "\r\n", "\r\n\r\n") + "  \r\n",
		"a byte order mark":         "\ufeff" + canonical,
		"a NUL at the end":          canonical + "\x00",
		"b= after t=":               strings.Replace(canonical, "b=AS:64\r\nt=0 0\r\n", "t=0 0\r\nb=AS:64\r\n", 1),
		"c= after a=":               strings.Replace(strings.Replace(canonical, "c=IN IP4 10.0.0.1\r\n", "", 1), "a=x\r\n", "a=x\r\nc=IN IP4 10.0.0.1\r\n", 1),
		"spaces in the m= line":     strings.Replace(canonical, "audio 4000", "audio  4000 ", 1),
		"spaces in front of a line": strings.Replace(canonical, "m=audio", " m=audio", 1),
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, canonical, string(parsed(t, text).Bytes()))
		})
	}
}

// Unknown lines are kept.
func TestUnknownLinesAreKept(t *testing.T) {
	for _, text := range []string{
		"v=0\r\no=- x y IN IP4 h\r\ns= \r\nb=WHAT:1\r\nt=0 0\r\nr=7d 1h 0\r\nt=5 6\r\nr=1d 1h 0\r\nm=image 4000 udptl t38\r\na=T38FaxVersion:0\r\n",
		"v=0\r\no=a 99999999999999999999999 1 IN IP4 h\r\ns=-\r\nc=TN RFC2543 +1-201-406-4090\r\nt=0 0\r\nq=what\r\nm=audio 4000/2 X/Y/Z foo bar\r\ni=title\r\nb=AS:1\r\n",
		"v=0\r\no=a 1 1 IN IP4 h\r\n",
		"v=0\r\nm=audio 4000 RTP/AVP 0\r\n",
		"v=0\r\nm=audio what RTP/AVP 0\r\n",
	} {
		require.Equal(t, text, string(parsed(t, text).Bytes()))
	}
}

// FS6: texts that cannot be read.
func TestMalformedDescriptions(t *testing.T) {
	for _, text := range []string{
		"", " \r\n", "this is no SDP", "v=nonsense\r\n", "v=1\r\no=a 1 1 IN IP4 h\r\nm=audio 1 RTP/AVP 0\r\n", "v=0\r\n", "v=0\r\ns=-\r\n", "s=0\r\no=a 1 1 IN IP4 h\r\nm=audio 1 RTP/AVP 0\r\n",
		"o=a 1 1 IN IP4 h\r\nv=0\r\n", session("m=audio"), session("m=audio 4000"), session("m="), session("audio 4000"),
		session("=x"), session("1=x"), "\x00\x01\x02", "v=0\r\n\x80\x81\r\n", "<?xml version='1.0'?>",
	} {
		_, err := Parse([]byte(text))
		require.ErrorIs(t, err, ErrUnreadable, "%q", text)
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]uint64{
		"o=a 1 7 IN IP4 h": 7, "v=0\r\no=a 1 7 IN IP4 h\r\n": 7, "v=0\no=a 1 7 IN IP4 h\n": 7, "v=0\ro=a 1 7 IN IP4 h": 7,
		"o=John Doe 1 7 IN IP4 h": 7, "o=a 1 7": 7, "o=a  1\t7 IN IP4 h": 7, "x=o=9 9 9\r\no=a 7 7 IN IP4 h\r\n": 7,
		"junk\r\no=a 1 18446744073709551615 IN IP4 h": 1<<64 - 1,
	} {
		version, ok := Version([]byte(text))
		require.True(t, ok, text)
		require.Equal(t, want, version, text)
		again, _ := Version(WithVersion([]byte(text), 8))
		require.Equal(t, uint64(8), again, text)
	}
	for _, text := range []string{"", "o=", "o=a", "o=a 1", "o=a 1 x IN IP4 h", "v=0", "o=a 1 -1 IN IP4 h", "o=a 1 99999999999999999999 IN IP4 h"} {
		_, ok := Version([]byte(text))
		require.False(t, ok, text)
	}
	require.Equal(t, "v=0\no=a 7 12 IN IP4 h\nx", string(WithVersion([]byte("v=0\no=a 7 7 IN IP4 h\nx"), 12)))
	require.Equal(t, "v=0\n", string(WithVersion([]byte("v=0\n"), 12)))
	require.Equal(t, "v=0\r\no=a 1 2 IN IP4 h\r\nt=0 0\r\n", string(WithOriginOf([]byte("v=0\r\no=b 7 9 IN IP4 x\r\nt=0 0\r\n"), []byte("o=a 1 2 IN IP4 h\n"))))
	require.True(t, SameOrigin([]byte("o=a 1 9 IN IP4 h\r\n"), []byte("v=0\no=a 1 2 IN IP4 h")))
	require.False(t, SameOrigin([]byte("o=a 1 9 IN IP4 h\r\n"), []byte("v=0\no=a 2 9 IN IP4 h")))
	require.True(t, SameOrigin([]byte("v=0"), []byte("o=a 1 2 IN IP4 h")))
	require.True(t, SameContent([]byte("v=0\r\no=a 1 1 IN IP4 h\r\n"), []byte("v=0\no=a 1 2 IN IP4 h")))
	require.False(t, SameContent([]byte("v=0\r\no=a 1 1 IN IP4 h\r\n"), []byte("v=0\r\no=b 1 1 IN IP4 h\r\n")))
}

// wanted returns the wanted session of an application that has offered these lines.
func wanted(t testing.TB, lines ...string) *Wanted {
	return (*Wanted)(nil).Offered(parsed(t, session(lines...)))
}

const (
	four      = "m=audio 5000 RTP/AVP 9 0 8 101"
	fourNames = "a=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20"
)

// FS1, FS2, FS3: each answer follows from the wanted session (RFC 3264 6).
func TestAnswersFollowFromTheWantedSession(t *testing.T) {
	for name, c := range map[string]struct {
		wanted, offer, answer string
	}{
		"all formats":              {four + "\r\n" + fourNames, "m=audio 4 RTP/AVP 0 8 9 101", "m=audio 5000 RTP/AVP 9 0 8 101 a=rtpmap:9 G722/8000 a=rtpmap:101 telephone-event/8000 a=fmtp:101 0-15 a=ptime:20 a=sendrecv "},
		"one":                      {four + "\r\n" + fourNames, "m=audio 4 RTP/AVP 8", "m=audio 5000 RTP/AVP 8 a=ptime:20 a=sendrecv "},
		"another codec":            {"m=audio 5 RTP/AVP 0 96\r\na=rtpmap:96 opus/48000/2", "m=audio 4 RTP/AVP 96 0\r\na=rtpmap:96 speex/8000", "m=audio 5 RTP/AVP 0 a=sendrecv "},
		"names in another case":    {"m=audio 5 RTP/AVP 96\r\na=rtpmap:96 opus/48000/2", "m=Audio 4 rtp/avp 96\r\na=rtpmap:96 OPUS/48000/2", "m=Audio 5 rtp/avp 96 a=rtpmap:96 opus/48000/2 a=sendrecv "},
		"one channel":              {"m=audio 5 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000", "m=audio 4 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000/1", "m=audio 5 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv "},
		"hold":                     {"m=audio 5 RTP/AVP 0\r\na=sendrecv\r\na=ptime:20", "m=audio 4 RTP/AVP 0\r\na=sendonly", "m=audio 5 RTP/AVP 0 a=recvonly a=ptime:20 "},
		"hold of the session":      {"m=audio 5 RTP/AVP 0", "a=inactive\r\nm=audio 4 RTP/AVP 0", "m=audio 5 RTP/AVP 0 a=inactive "},
		"on hold ourselves":        {"m=audio 5 RTP/AVP 0\r\na=sendonly", "m=audio 4 RTP/AVP 0", "m=audio 5 RTP/AVP 0 a=sendonly "},
		"both on hold":             {"m=audio 5 RTP/AVP 0\r\na=sendonly", "m=audio 4 RTP/AVP 0\r\na=sendonly", "m=audio 5 RTP/AVP 0 a=inactive "},
		"held by the session":      {"a=recvonly\r\nm=audio 5 RTP/AVP 0", "m=audio 4 RTP/AVP 0", "m=audio 5 RTP/AVP 0 a=recvonly "},
		"port 0":                   {"m=audio 5 RTP/AVP 0", "m=audio 0 RTP/AVP 0", "m=audio 0 RTP/AVP 0 "},
		"nothing at all":           {"m=audio 5 RTP/AVP 0", "a=x", ""},
		"a fax beside":             {"m=audio 5 RTP/AVP 0", "m=audio 4 RTP/AVP 0\r\nm=image 0 udptl t38", "m=audio 5 RTP/AVP 0 a=sendrecv m=image 0 udptl t38 "},
		"a fax offered beside":     {"m=audio 5 RTP/AVP 0", "m=audio 4 RTP/AVP 0\r\nm=image 7 udptl t38\r\na=T38FaxVersion:0", "m=audio 5 RTP/AVP 0 a=sendrecv m=image 0 udptl t38 "},
		"a fax in the first place": {"m=audio 5 RTP/AVP 0", "m=image 0 udptl t38\r\nm=audio 4 RTP/AVP 0", "m=image 0 udptl t38 m=audio 5 RTP/AVP 0 a=sendrecv "},
		"another transport beside": {"m=audio 5 RTP/AVP 0", "m=audio 4 RTP/SAVP 0\r\nm=audio 6 RTP/AVP 0", "m=audio 0 RTP/SAVP 0 m=audio 5 RTP/AVP 0 a=sendrecv "},
		"no format":                {"m=audio 5 RTP/AVP 0", "m=audio 4 RTP/AVP 0\r\nm=video 4 RTP/AVP", "m=audio 5 RTP/AVP 0 a=sendrecv m=video 0 RTP/AVP 0 "},
		"a port that is none":      {"m=audio 5 RTP/AVP 0", "m=audio 4 RTP/AVP 0\r\nm=audio 99999 RTP/AVP 0", "m=audio 5 RTP/AVP 0 a=sendrecv m=audio 0 RTP/AVP 0 "},
		"two streams, one taken":   {"m=audio 5 RTP/AVP 0\r\nm=audio 7 RTP/AVP 8", "m=audio 0 RTP/AVP 0\r\nm=audio 4 RTP/AVP 8", "m=audio 0 RTP/AVP 0 m=audio 7 RTP/AVP 8 a=sendrecv "},
		"keys alone are wanted":    {"m=audio 5 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000", "m=audio 4 RTP/AVP 101", "m=audio 5 RTP/AVP 101 a=rtpmap:101 telephone-event/8000 a=sendrecv "},
		"lines about all formats":  {"m=video 5 RTP/AVP 96 97\r\na=rtcp-fb:* nack\r\na=rtcp-fb:97 pli", "m=video 4 RTP/AVP 96", "m=video 5 RTP/AVP 96 a=rtcp-fb:* nack a=sendrecv "},
		"two of a kind":            {"m=audio 5 RTP/AVP 0", "m=audio 4 RTP/AVP 0\r\nm=audio 6 RTP/AVP 0", "m=audio 5 RTP/AVP 0 a=sendrecv m=audio 0 RTP/AVP 0 "},
		"message":                  {"m=message 5 TCP/MSRP *\r\na=accept-types:*", "m=message 4 TCP/MSRP *", "m=message 5 TCP/MSRP * a=accept-types:* a=sendrecv "},
	} {
		t.Run(name, func(t *testing.T) {
			answer, why := wanted(t, c.wanted).Answer(parsed(t, session(c.offer)))
			require.Nil(t, why)
			require.Equal(t, c.answer, media(answer))
			require.Len(t, answer.Media, strings.Count(session(c.offer), "\r\nm="))
		})
	}
}

// FS3: an offer without an acceptable line gets the reasons (RFC 3261 20.43).
func TestOfferOfWhichNoLineIsAcceptable(t *testing.T) {
	for offer, why := range map[string][]Warning{
		"m=image 4000 udptl t38":                                                       {NoMedia},
		"m=audio 0 RTP/AVP 0\r\nm=image 4000 udptl t38":                                {NoMedia},
		"m=audio 4000 RTP/AVP 18 4":                                                    {NoFormat},
		"m=audio 4000 RTP/AVP 101":                                                     {NoFormat}, // keys without sound
		"m=audio 4000 RTP/AVP 101 13\r\na=rtpmap:101 telephone-event/8000":             {NoFormat},
		"m=audio 4000 RTP/SAVP 0":                                                      {NoMedia, NoTransport},
		"m=video 4 RTP/AVP 31\r\nm=audio 4 RTP/AVP 18\r\nm=audio 5 UDP/TLS/RTP/SAVP 0": {NoMedia, NoFormat, NoTransport},
		"m=audio x RTP/AVP 0":                                                          {NoSense},
		"m=audio 99999 RTP/AVP 0":                                                      {NoSense},
	} {
		answer, refused := wanted(t, four, fourNames).Answer(parsed(t, session(offer)))
		require.Nil(t, answer, offer)
		require.Equal(t, why, refused.Warnings, offer)
		require.NotEmpty(t, refused.Error())
	}
}

// Comfort noise alone is not a common format, by its number or by its name.
func TestComfortNoiseAloneIsNoCommonFormat(t *testing.T) {
	for ours, offer := range map[string]string{
		"m=audio 5 RTP/AVP 0 13":                         "m=audio 4 RTP/AVP 13",
		"m=audio 5 RTP/AVP 0 98\r\na=rtpmap:98 CN/16000": "m=audio 4 RTP/AVP 98\r\na=rtpmap:98 cn/16000",
	} {
		_, refused := wanted(t, ours).Answer(parsed(t, session(offer)))
		require.NotNil(t, refused, offer)
		require.Equal(t, []Warning{NoFormat}, refused.Warnings)
	}
}

// RFC 3264 6: the answer has the time of the offer.
func TestTimesOfTheAnswer(t *testing.T) {
	for offer, times := range map[string]string{
		"t=5 6\r\nr=7d 1h 0": "t=5 6\r\nr=7d 1h 0\r\n", "s=-": "t=0 0\r\n",
	} {
		answer, _ := wanted(t, "m=audio 5 RTP/AVP 0").Answer(parsed(t, "v=0\r\n"+offer+"\r\nm=audio 4 RTP/AVP 0\r\n"))
		require.Contains(t, string(answer.Bytes()), "c=IN IP4 10.0.0.1\r\n"+times+"m=audio")
	}
	ours := (*Wanted)(nil).Offered(parsed(t, "v=0\r\no=a 1 1 IN IP4 h\r\nm=audio 5 RTP/AVP 0\r\n"))
	answer, _ := ours.Answer(parsed(t, "v=0\r\nm=audio 4 RTP/AVP 0\r\n"))
	require.Equal(t, "v=0\r\no=a 1 1 IN IP4 h\r\nt=0 0\r\nm=audio 5 RTP/AVP 0\r\na=sendrecv\r\n", string(answer.Bytes()))
}

// FS1: a part that the offer did not contain, and so the application's answer does not, is
// still wanted.
func TestAnswersOfTheApplicationTakeNothingAway(t *testing.T) {
	const audioVideo = "m=audio 5 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\nm=video 7 RTP/AVP 31"
	for name, c := range map[string]struct {
		before, offer, answer, wants string
	}{
		"the first":                {"", "m=audio 4 RTP/AVP 0", "m=audio 5 RTP/AVP 0", "m=audio 5 RTP/AVP 0 a=sendrecv "},
		"the first, to a hold":     {"", "m=audio 4 RTP/AVP 0\r\na=sendonly", "m=audio 5 RTP/AVP 0\r\na=recvonly", "m=audio 5 RTP/AVP 0 a=sendrecv "},
		"the first, not to send":   {"", "m=audio 4 RTP/AVP 0", "m=audio 5 RTP/AVP 0\r\na=recvonly", "m=audio 5 RTP/AVP 0 a=recvonly "},
		"to a hold, not to hear":   {"", "m=audio 4 RTP/AVP 0\r\na=sendonly", "m=audio 5 RTP/AVP 0\r\na=inactive", "m=audio 5 RTP/AVP 0 a=sendonly "},
		"fewer formats":            {audioVideo, "m=audio 4 RTP/AVP 8\r\nm=video 4 RTP/AVP 31", "m=audio 5 RTP/AVP 8\r\nm=video 7 RTP/AVP 31", "m=audio 5 RTP/AVP 8 0 101 a=sendrecv a=rtpmap:101 telephone-event/8000 m=video 7 RTP/AVP 31 a=sendrecv "},
		"the same codec elsewhere": {"m=audio 5 RTP/AVP 96 0\r\na=rtpmap:96 opus/48000/2", "m=audio 4 RTP/AVP 111\r\na=rtpmap:111 opus/48000/2", "m=audio 5 RTP/AVP 111\r\na=rtpmap:111 OPUS/48000/2", "m=audio 5 RTP/AVP 111 0 a=rtpmap:111 OPUS/48000/2 a=sendrecv "},
		"video switched off":       {audioVideo, "m=audio 4 RTP/AVP 0\r\nm=video 0 RTP/AVP 31", "m=audio 5 RTP/AVP 0\r\nm=video 0 RTP/AVP 31", "m=audio 5 RTP/AVP 0 8 101 a=sendrecv a=rtpmap:101 telephone-event/8000 m=video 7 RTP/AVP 31 a=sendrecv "},
		"video refused":            {audioVideo, "m=audio 4 RTP/AVP 0\r\nm=video 4 RTP/AVP 31", "m=audio 5 RTP/AVP 0 8\r\nm=video 0 RTP/AVP 31", "m=audio 5 RTP/AVP 0 8 101 a=sendrecv a=rtpmap:101 telephone-event/8000 m=video 0 RTP/AVP 31 "},
		"video left out":           {audioVideo, "m=audio 4 RTP/AVP 0", "m=audio 5 RTP/AVP 0 8", "m=audio 5 RTP/AVP 0 8 101 a=sendrecv a=rtpmap:101 telephone-event/8000 m=video 7 RTP/AVP 31 a=sendrecv "},
		"we hold, the peer too":    {"m=audio 5 RTP/AVP 0\r\na=sendonly", "m=audio 4 RTP/AVP 0\r\na=sendonly", "m=audio 5 RTP/AVP 0\r\na=inactive", "m=audio 5 RTP/AVP 0 a=sendonly "},
		"another port":             {"m=audio 5 RTP/AVP 0", "m=audio 4 RTP/AVP 0", "m=audio 6 RTP/AVP 0", "m=audio 6 RTP/AVP 0 a=sendrecv "},
	} {
		t.Run(name, func(t *testing.T) {
			var before *Wanted
			if c.before != "" {
				before = wanted(t, c.before)
			}
			after := before.Answered(parsed(t, session(c.answer)), parsed(t, session(c.offer)))
			require.Equal(t, c.wants, media(&after.Description))
		})
	}
}

// An offer of the application sets the wanted session, and drops the parts that it leaves
// out.
func TestOffersOfTheApplicationSetTheWantedSession(t *testing.T) {
	w := wanted(t, "m=audio 5 RTP/AVP 0 8", "m=video 7 RTP/AVP 31")
	w = w.Offered(parsed(t, session("m=audio 6 RTP/AVP 8", "m=video 0 RTP/AVP 31")))
	require.Equal(t, "m=audio 6 RTP/AVP 8 m=video 0 RTP/AVP 31 ", media(&w.Description))
	_, refused := w.Answer(parsed(t, session("m=audio 4 RTP/AVP 0", "m=video 4 RTP/AVP 31")))
	require.Equal(t, []Warning{NoMedia, NoFormat}, refused.Warnings)
	w = wanted(t, "m=audio 5 RTP/AVP 0").Offered(parsed(t, session("m=image 0 udptl t38")))
	_, refused = w.Answer(parsed(t, session("m=audio 4 RTP/AVP 0")))
	require.NotNil(t, refused, "a closed stream needs no room")
	require.Equal(t, []Warning{NoMedia}, refused.Warnings)
}

// A fax replaces audio, and audio comes back: by offers of the peer, and of the
// application.
func TestAudioThatMadeWayForAFaxComesBack(t *testing.T) {
	audio, fax := session("m=audio 5 RTP/AVP 0"), session("m=image 6 udptl t38")
	for name, w := range map[string]*Wanted{
		"offered":  wanted(t, "m=audio 5 RTP/AVP 0").Offered(parsed(t, fax)),
		"answered": wanted(t, "m=audio 5 RTP/AVP 0").Answered(parsed(t, fax), parsed(t, session("m=image 4 udptl t38"))),
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, media(w.Offer(parsed(t, fax))), "m=image 6 udptl t38 ")
			require.NotContains(t, media(w.Offer(parsed(t, fax))), "audio")
			answer, why := w.Answer(parsed(t, session("m=audio 4 RTP/AVP 0")))
			require.Nil(t, why)
			require.Equal(t, "m=audio 5 RTP/AVP 0 a=sendrecv ", media(answer))
			require.Equal(t, "m=audio 5 RTP/AVP 0 a=sendrecv ", media(w.Offer(answer)))
			answer, why = w.Answer(parsed(t, session("m=image 4 udptl t38")))
			require.Nil(t, why)
			require.Equal(t, "m=image 6 udptl t38 a=sendrecv ", media(answer))
			again := w.Offered(parsed(t, audio))
			answer, why = again.Answer(parsed(t, session("m=image 4 udptl t38")))
			require.Nil(t, why, "the fax is in reserve now")
			require.Equal(t, "m=image 6 udptl t38 a=sendrecv ", media(answer))
		})
	}
}

// FS1, FS2: an offer of ours is the wanted session, whatever the peer has accepted of it,
// and removes no m-line (RFC 3264 8).
func TestOffersFollowFromTheWantedSession(t *testing.T) {
	const audioVideo = "m=audio 5 RTP/AVP 0 8\r\nm=video 7 RTP/AVP 31"
	for name, c := range map[string]struct {
		wanted, stands, offer string
	}{
		"nothing stands":              {audioVideo, "", "m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31 "},
		"all stands":                  {audioVideo, audioVideo, "m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31 "},
		"formats are missing":         {audioVideo, "m=audio 5 RTP/AVP 8\r\nm=video 7 RTP/AVP 31", "m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31 "},
		"a stream is switched off":    {audioVideo, "m=audio 0 RTP/AVP 8\r\nm=video 7 RTP/AVP 31", "m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31 "},
		"a stream is missing":         {audioVideo, "m=audio 5 RTP/AVP 8", "m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31 "},
		"a line that nobody wants":    {audioVideo, audioVideo + "\r\nm=image 0 udptl t38", "m=audio 5 RTP/AVP 0 8 m=video 7 RTP/AVP 31 m=image 0 udptl t38 "},
		"audio has moved":             {"m=audio 5 RTP/AVP 0", "m=image 0 udptl t38\r\nm=audio 5 RTP/AVP 0\r\na=recvonly", "m=image 0 udptl t38 m=audio 5 RTP/AVP 0 "},
		"all have changed places":     {audioVideo, "m=video 7 RTP/AVP 31\r\nm=audio 5 RTP/AVP 0", "m=video 7 RTP/AVP 31 m=audio 5 RTP/AVP 0 8 "},
		"two of a kind have moved":    {"m=audio 5 RTP/AVP 0\r\nm=audio 7 RTP/AVP 8", "m=audio 7 RTP/AVP 8\r\nm=audio 5 RTP/AVP 0", "m=audio 7 RTP/AVP 8 m=audio 5 RTP/AVP 0 "},
		"one is given up":             {"m=audio 0 RTP/AVP 0\r\na=ptime:20\r\nm=video 7 RTP/AVP 31", "m=audio 5 RTP/AVP 8\r\nm=video 7 RTP/AVP 31", "m=audio 0 RTP/AVP 8 m=video 7 RTP/AVP 31 "},
		"a slot that is not wanted":   {"m=audio 0 RTP/AVP 0\r\nm=video 7 RTP/AVP 31", "m=audio 0 RTP/AVP 0\r\nm=video 0 RTP/AVP 31", "m=audio 0 RTP/AVP 0 m=video 7 RTP/AVP 31 "},
		"the port has changed since":  {"m=audio 5 RTP/AVP 0", "m=audio 6 RTP/AVP 0", "m=audio 5 RTP/AVP 0 "},
		"its kind has changed since ": {"m=audio 5 RTP/AVP 0", "m=image 6 udptl t38", "m=audio 5 RTP/AVP 0 "},
	} {
		t.Run(name, func(t *testing.T) {
			var stands *Description
			if c.stands != "" {
				stands = parsed(t, session(c.stands))
			}
			require.Equal(t, c.offer, media(wanted(t, c.wanted).Offer(stands)))
		})
	}
}

// A stream keeps its address and its direction among the session lines of another
// description.
func TestStreamsKeepTheirAddressAmongOtherSessionLines(t *testing.T) {
	w := wanted(t, "a=sendonly", "m=audio 5 RTP/AVP 0", "m=video 7 RTP/AVP 31")
	moved := strings.Replace(session("m=audio 5 RTP/AVP 0", "m=video 0 RTP/AVP 31"), "c=IN IP4 10.0.0.1", "c=IN IP4 10.0.0.2", 1)
	w = w.Answered(parsed(t, moved), parsed(t, session("m=audio 4 RTP/AVP 0", "m=video 0 RTP/AVP 31")))
	offer := string(w.Offer(nil).Bytes())
	require.Contains(t, offer, "s=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\nm=audio 5 RTP/AVP 0\r\na=sendrecv\r\nm=video 7 RTP/AVP 31\r\nc=IN IP4 10.0.0.1\r\na=sendonly\r\n")

	w = wanted(t, "m=audio 5 RTP/AVP 0", "m=video 7 RTP/AVP 31", "c=IN IP4 10.0.0.7")
	w = w.Answered(parsed(t, moved), parsed(t, session("m=audio 4 RTP/AVP 0", "m=video 0 RTP/AVP 31")))
	require.Contains(t, string(w.Offer(nil).Bytes()), "m=video 7 RTP/AVP 31\r\nc=IN IP4 10.0.0.7\r\na=sendrecv\r\n", "its own")
}

func TestDirectionsAreChanged(t *testing.T) {
	d := parsed(t, session("a=sendonly", "m=audio 5 RTP/AVP 0", "m=audio 6 RTP/AVP 0\r\na=RecvOnly \r\na=ptime:20", "m=video 0 RTP/AVP 31"))
	require.Equal(t, "m=audio 5 RTP/AVP 0 a=sendrecv m=audio 6 RTP/AVP 0 a=recvonly a=ptime:20 m=video 0 RTP/AVP 31 ",
		media(d.WithDirections(func(was Direction) Direction { return was | Receives })))
	require.Equal(t, "m=audio 5 RTP/AVP 0 a=sendonly m=audio 6 RTP/AVP 0 a=inactive a=ptime:20 m=video 0 RTP/AVP 31 ",
		media(d.WithDirections(func(was Direction) Direction { return was &^ Receives })))
	require.NotContains(t, string(d.WithDirections(func(was Direction) Direction { return was }).Bytes()), "t=0 0\r\na=sendonly")
}

// RFC 3264 6: a refusal has our origin, if we have one.
func TestRefusalsHavePort0InEveryLine(t *testing.T) {
	offer := parsed(t, "v=0\r\no=b 2 2 IN IP4 h\r\ns=x\r\nt=5 6\r\na=y\r\nm=audio 4 RTP/AVP 0\r\na=z\r\nm=image 4 udptl t38\r\n")
	require.Equal(t, "v=0\r\no=b 2 2 IN IP4 h\r\ns=x\r\nt=5 6\r\nm=audio 0 RTP/AVP 0\r\nm=image 0 udptl t38\r\n", string(Refusal(offer, nil).Bytes()))
	ours := parsed(t, session("a=q", "m=audio 5 RTP/AVP 0")).WithVersion(9)
	require.Equal(t, "v=0\r\no=a 1 9 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=5 6\r\nm=audio 0 RTP/AVP 0\r\nm=image 0 udptl t38\r\n", string(Refusal(offer, ours).Bytes()))
}

// Descriptions of the same session in different forms.
func TestSameSession(t *testing.T) {
	a := parsed(t, session("b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:20", "m=video 0 RTP/AVP 31"))
	for text, same := range map[string]bool{
		session("b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:20\r\na=sendrecv", "m=video 0 RTP/AVP 99"):                                                         true,
		strings.Replace(session("a=sendrecv", "b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:20", "m=video 0 RTP/AVP 31"), "1 1 ", "1 9 ", 1):                     true,
		session("b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:30", "m=video 0 RTP/AVP 31"):                                                                       false,
		strings.Replace(session("b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:20", "m=video 0 RTP/AVP 31"), "t=0 0", "t=5 6", 1):                                 true,
		strings.Replace(session("m=audio 5 RTP/AVP 0\r\na=ptime:20", "m=video 0 RTP/AVP 31"), "c=IN IP4 10.0.0.1\r\n", "b=AS:1\r\nc=IN IP4 10.0.0.1\r\n", 1): true,
		session("m=audio 5 RTP/AVP 0\r\na=ptime:20", "m=video 0 RTP/AVP 31"):                                                                                 false,
		session("b=AS:1", "m=audio 6 RTP/AVP 0\r\na=ptime:20", "m=video 0 RTP/AVP 31"):                                                                       false,
		session("b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:20\r\na=sendonly", "m=video 0 RTP/AVP 31"):                                                         false,
		session("b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:20", "m=video 7 RTP/AVP 31"):                                                                       false,
		session("b=AS:1", "m=audio 5 RTP/AVP 0\r\na=ptime:20"):                                                                                               false,
		session("b=AS:1", "m=audio 5 RTP/AVP 0 8\r\na=ptime:20", "m=video 0 RTP/AVP 31"):                                                                     false,
	} {
		require.Equal(t, same, Same(a, parsed(t, text)), text)
		require.Equal(t, same, Same(parsed(t, text), a), text)
	}
}

// No input causes a panic, and every output can be read.
func FuzzDescriptions(f *testing.F) {
	for _, text := range []string{session("m=audio 4 RTP/AVP 0"), session(four, fourNames), "v=0\r\no=", session("m=image 4 udptl t38\r\na=inactive"), session("a=sendonly", "m=a 0 b")} {
		f.Add(text, session(four, fourNames, "m=video 7 RTP/AVP 31"))
	}
	f.Fuzz(func(t *testing.T, theirs, ours string) {
		version, ok := Version([]byte(ours))
		if again, still := Version(WithVersion([]byte(ours), version)); ok && (!still || again != version) {
			t.Fatalf("%q: version %d became %d", ours, version, again)
		}
		offer, err := Parse([]byte(theirs))
		if err != nil {
			return
		}
		mine, err := Parse([]byte(ours))
		if err != nil {
			return
		}
		w := (*Wanted)(nil).Offered(mine)
		for range 2 {
			if answer, why := w.Answer(offer); why == nil {
				checkLines(t, answer, offer)
				checkLines(t, w.Offer(answer), answer)
				w = w.Answered(answer, offer).Offered(w.Offer(answer))
			} else if why.Error() == "" || len(why.Warnings) == 0 {
				t.Fatal("no reason")
			}
			checkLines(t, Refusal(offer, mine), offer)
		}
	})
}

// checkLines checks that a description can be read, and has all lines of the one
// before.
func checkLines(t *testing.T, d, before *Description) {
	t.Helper()
	again, err := Parse(d.Bytes())
	if err != nil && len(d.Media) > 0 {
		t.Fatalf("%v: %q", err, d.Bytes())
	}
	if err == nil && (len(again.Media) != len(d.Media) || len(d.Media) < len(before.Media)) {
		t.Fatalf("%q after %q", d.Bytes(), before.Bytes())
	}
}

// FX11: a description with too many streams, or formats, is refused.
func TestStreamsAreBounded(t *testing.T) {
	const head = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nt=0 0\r\n"
	line := func(formats int) string { return "m=audio 0 RTP/AVP" + strings.Repeat(" 0", formats) + "\r\n" }
	for _, c := range []struct {
		text string
		fits bool
	}{
		{strings.Repeat(line(1), maxMedia), true},
		{strings.Repeat(line(1), maxMedia+1), false},
		{line((maxMediaText - 15) / 2), true},
		{line(maxMediaText/2 - 7), false},
		{line(maxMediaText/4) + line(maxMediaText/4), false},
	} {
		_, err := Parse([]byte(head + c.text))
		require.Equal(t, c.fits, err == nil, "%d bytes", len(c.text))
	}
}
