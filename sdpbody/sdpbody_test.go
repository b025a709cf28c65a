package sdpbody_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/sdpbody"
)

const head = "v=0\r\no=alice 2890844526 2890844526 IN IP4 host.atlanta.example.com\r\ns= \r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"

// offer returns an offer with these lines below its session lines.
func offer(lines ...string) dialog.Body {
	return dialog.NewBody("application/sdp", []byte(head+strings.Join(lines, "\r\n")+"\r\n"))
}

func local(streams ...sdpbody.Stream) sdpbody.Local {
	return sdpbody.Local{Addr: netip.MustParseAddr("192.0.2.1"), User: "bob", Streams: streams}
}

func made(t testing.TB, l sdpbody.Local) *sdpbody.Session {
	t.Helper()
	s, err := sdpbody.New(l)
	require.NoError(t, err)
	return s
}

// lines returns the m= lines and what is below them.
func lines(t testing.TB, b dialog.Body) string {
	t.Helper()
	require.Equal(t, "application/sdp", b.ContentType())
	_, below, _ := strings.Cut(string(b.Data()), "t=0 0\r\n")
	return strings.TrimSpace(strings.ReplaceAll(below, "\r\n", " "))
}

var (
	pcmu   = sdpbody.PCMU()
	pcma   = sdpbody.PCMA()
	dtmf   = sdpbody.DTMF(101)
	ilbc   = sdpbody.Codec{Payload: 97, Name: "iLBC/8000"}
	opus   = sdpbody.Codec{Payload: 111, Name: "opus/48000/2", Params: "useinbandfec=1"}
	h261   = sdpbody.Codec{Payload: 31, Name: "H261/90000"}
	mpv    = sdpbody.Codec{Payload: 32, Name: "MPV/90000"}
	speech = sdpbody.Stream{Port: 49174, Codecs: []sdpbody.Codec{pcmu, pcma}}
)

func audio(port int, codecs ...sdpbody.Codec) sdpbody.Stream {
	return sdpbody.Stream{Port: port, Codecs: codecs}
}

func video(port int, codecs ...sdpbody.Codec) sdpbody.Stream {
	return sdpbody.Stream{Kind: "video", Port: port, Codecs: codecs}
}

func directed(s sdpbody.Stream, d sdpbody.Direction) sdpbody.Stream {
	s.Direction = d
	return s
}

// The offers of RFC 4317 2.1 to 2.3.
var audioAndVideo = []string{
	"m=audio 49170 RTP/AVP 0 8 97", "a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", "a=rtpmap:97 iLBC/8000",
	"m=video 51372 RTP/AVP 31 32", "a=rtpmap:31 H261/90000", "a=rtpmap:32 MPV/90000",
}

func TestAnswersByRuleOfRFC3264(t *testing.T) {
	for name, row := range map[string]struct {
		local sdpbody.Local
		offer []string
		want  string
	}{
		"RFC 4317 2.1: one codec of each stream": {local(audio(49174, pcmu), video(49170, mpv)), audioAndVideo,
			"m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv m=video 49170 RTP/AVP 32 a=rtpmap:32 MPV/90000 a=sendrecv"},
		"RFC 4317 2.2: two codecs, no video": {local(audio(49174, pcmu, pcma)), audioAndVideo,
			"m=audio 49174 RTP/AVP 0 8 a=rtpmap:0 PCMU/8000 a=rtpmap:8 PCMA/8000 a=sendrecv m=video 0 RTP/AVP 31 32"},
		"RFC 4317 2.4: two audio streams, the second for keys": {local(audio(49174, pcmu), audio(49175, dtmf)),
			[]string{"m=audio 49170 RTP/AVP 0", "m=audio 51372 RTP/AVP 97 101", "a=rtpmap:97 iLBC/8000", "a=rtpmap:101 telephone-event/8000"},
			"m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv m=audio 49175 RTP/AVP 101 a=rtpmap:101 telephone-event/8000 a=fmtp:101 0-15 a=sendrecv"},
		"RFC 4317 4.3, RFC 3264 8.2: a stream that ends": {local(speech, video(49170, h261)),
			[]string{"m=audio 49170 RTP/AVP 0", "m=video 0 RTP/AVP 31"},
			"m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv m=video 0 RTP/AVP 31"},
		"RFC 3264 6: order of lines kept": {local(speech, video(49170, h261)),
			[]string{"m=video 51372 RTP/AVP 31", "m=audio 49170 RTP/AVP 0"},
			"m=video 49170 RTP/AVP 31 a=rtpmap:31 H261/90000 a=sendrecv m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv"},
		"RFC 3264 6: another transport and kind refused": {local(speech),
			[]string{"m=audio 49168 RTP/SAVP 0", "m=application 9 DTLS/SCTP 5000", "m=audio 49170 RTP/AVP 0"},
			"m=audio 0 RTP/SAVP 0 m=application 0 DTLS/SCTP 5000 m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv"},
		"RFC 3264 6: all lines with port 0": {local(speech), []string{"m=audio 0 RTP/AVP 0"}, "m=audio 0 RTP/AVP 0"},
		"RFC 3264 6: no line":               {local(speech), nil, ""},
		"RFC 3264 6.1: the order of the offer": {local(speech),
			[]string{"m=audio 49170 RTP/AVP 8 0"}, "m=audio 49174 RTP/AVP 8 0 a=rtpmap:8 PCMA/8000 a=rtpmap:0 PCMU/8000 a=sendrecv"},
		"RFC 3264 6.1: the numbers of the offer": {local(audio(49174, pcmu, dtmf, opus)),
			[]string{"m=audio 49170 RTP/AVP 96 0 100", "a=rtpmap:96 OPUS/48000/2", "a=rtpmap:100 telephone-event/8000", "a=fmtp:100 0-16"},
			"m=audio 49174 RTP/AVP 96 0 100 a=rtpmap:96 opus/48000/2 a=fmtp:96 useinbandfec=1 a=rtpmap:0 PCMU/8000 a=rtpmap:100 telephone-event/8000 a=fmtp:100 0-15 a=sendrecv"},
		"RFC 3264 6.1: a number that is another codec's": {local(audio(49174, pcmu, ilbc)),
			[]string{"m=audio 49170 RTP/AVP 97 0", "a=rtpmap:97 speex/8000"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv"},
		"a static codec under a dynamic number": {local(speech),
			[]string{"m=audio 49170 RTP/AVP 98", "a=rtpmap:98 PCMA/8000/1"}, "m=audio 49174 RTP/AVP 98 a=rtpmap:98 PCMA/8000 a=sendrecv"},
		"of one codec the format with equal parameters": {local(audio(49174, opus)),
			[]string{"m=audio 49170 RTP/AVP 96 97", "a=rtpmap:96 opus/48000/2", "a=rtpmap:97 opus/48000/2", "a=fmtp:97 useinbandfec=1"},
			"m=audio 49174 RTP/AVP 97 a=rtpmap:97 opus/48000/2 a=fmtp:97 useinbandfec=1 a=sendrecv"},
		"RFC 3264 6.1: sendonly":                       {local(speech), []string{"m=audio 4 RTP/AVP 0", "a=sendonly"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=recvonly"},
		"RFC 3264 6.1: recvonly":                       {local(speech), []string{"m=audio 4 RTP/AVP 0", "a=recvonly"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendonly"},
		"RFC 3264 6.1: inactive":                       {local(speech), []string{"m=audio 4 RTP/AVP 0", "a=inactive"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=inactive"},
		"RFC 3264 6.1: direction of the session":       {local(speech), []string{"a=sendonly", "m=audio 4 RTP/AVP 0"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=recvonly"},
		"RFC 3264 6.1: held on both sides":             {local(directed(speech, sdpbody.SendOnly)), []string{"m=audio 4 RTP/AVP 0", "a=sendonly"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=inactive"},
		"RFC 6337 5.3: we hold, the peer resumes":      {local(directed(speech, sdpbody.SendOnly)), []string{"m=audio 4 RTP/AVP 0"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendonly"},
		"RFC 6337 5.4: address 0.0.0.0":                {local(speech), []string{"m=audio 4 RTP/AVP 0", "c=IN IP4 0.0.0.0"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv"},
		"RFC 6337 5.4: address 0.0.0.0 and a=sendonly": {local(speech), []string{"m=audio 4 RTP/AVP 0", "c=IN IP4 0.0.0.0", "a=sendonly"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=recvonly"},
		"RFC 5761 5.1.1: rtcp-mux that was offered": {local(sdpbody.Stream{Port: 4000, Codecs: []sdpbody.Codec{pcmu}, RTCPMux: true}),
			[]string{"m=audio 4 RTP/AVP 0", "a=rtcp-mux"}, "m=audio 4000 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=rtcp-mux a=sendrecv"},
		"RFC 5761 5.1.1: rtcp-mux that was not": {local(sdpbody.Stream{Port: 4000, Codecs: []sdpbody.Codec{pcmu}, RTCPMux: true}),
			[]string{"m=audio 4 RTP/AVP 0"}, "m=audio 4000 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv"},
		"what we do not know is not repeated": {local(speech),
			[]string{"a=group:BUNDLE 0", "m=audio 4 RTP/AVP 0", "a=rtcp-mux", "a=ice-ufrag:x", "a=mid:0", "a=crypto:1 x inline:y", "a=candidate:1"}, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv"},
		"ptime and attributes": {local(sdpbody.Stream{Port: 4000, Codecs: []sdpbody.Codec{pcmu}, PTime: 30 * time.Millisecond, Attributes: []string{"label:1"}}),
			[]string{"m=audio 4 RTP/AVP 0", "a=ptime:20"}, "m=audio 4000 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=ptime:30 a=label:1 a=sendrecv"},
		"a stream of ours with port 0 takes nothing": {local(audio(0, pcmu), audio(4000, pcma)),
			[]string{"m=audio 4 RTP/AVP 0 8"}, "m=audio 4000 RTP/AVP 8 a=rtpmap:8 PCMA/8000 a=sendrecv"},
	} {
		t.Run(name, func(t *testing.T) {
			answer, err := made(t, row.local).Answer(offer(row.offer...))
			require.NoError(t, err)
			require.Equal(t, row.want, lines(t, answer))
		})
	}
}

func TestUnacceptableOffersAreRefusedWithAWarning(t *testing.T) {
	for name, row := range map[string]struct {
		offer dialog.Body
		want  string
	}{
		"no codec in common":       {offer("m=audio 4 RTP/AVP 18"), `305 dialog "Incompatible media format"`},
		"keys alone":               {offer("m=audio 4 RTP/AVP 101", "a=rtpmap:101 telephone-event/8000"), `305 dialog "Incompatible media format"`},
		"another clock rate":       {offer("m=audio 4 RTP/AVP 96", "a=rtpmap:96 PCMU/16000"), `305 dialog "Incompatible media format"`},
		"another kind":             {offer("m=video 4 RTP/AVP 31"), `304 dialog "Media type not available"`},
		"another transport":        {offer("m=audio 4 RTP/SAVP 0"), `304 dialog "Media type not available"`},
		"a port that is none":      {offer("m=audio x RTP/AVP 0"), `307 dialog "Session description parameter not understood"`},
		"no session description":   {dialog.NewBody("text/plain", []byte("hello")), `399 dialog "no session description"`},
		"a description unreadable": {dialog.NewBody("application/sdp", []byte("hello")), `399 dialog "offer cannot be read"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := made(t, local(audio(4000, pcmu, dtmf))).Answer(row.offer)
			var refusal *dialog.Refusal
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, 488, refusal.Status)
			require.Equal(t, []dialog.Header{{Name: "Warning", Value: row.want}}, refusal.Headers)
		})
	}
}

func TestTheOriginOfACallStaysTheSame(t *testing.T) {
	origin := regexp.MustCompile(`(?m)^o=bob \d+ 1 IN IP4 192\.0\.2\.1\r$`)
	s := made(t, local(speech))
	answer, err := s.Answer(offer("m=audio 4 RTP/AVP 0"))
	require.NoError(t, err)
	o := origin.FindString(string(s.Offer().Data()))
	require.NotEmpty(t, o)
	require.Contains(t, string(answer.Data()), o)
	held, err := s.With(local(directed(speech, sdpbody.SendOnly)))
	require.NoError(t, err)
	require.Contains(t, string(held.Offer().Data()), o)
	require.Contains(t, string(held.Offer().Data()), "a=sendonly")
	require.NotContains(t, string(s.Offer().Data()), "a=sendonly")
	require.NotContains(t, string(made(t, local(speech)).Offer().Data()), o)
}

func TestOffersAndIPv6(t *testing.T) {
	l := sdpbody.Local{Addr: netip.MustParseAddr("2001:db8::1"), Streams: []sdpbody.Stream{audio(4000, pcmu, dtmf), video(0, h261)}}
	s := made(t, l)
	text := regexp.MustCompile(`o=- \d+`).ReplaceAllString(string(s.Offer().Data()), "o=- 1")
	require.Equal(t, "v=0\r\no=- 1 1 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP6 2001:db8::1\r\nt=0 0\r\n"+
		"m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n"+
		"m=video 0 RTP/AVP 31\r\na=rtpmap:31 H261/90000\r\na=sendrecv\r\n", text)
	asked, err := s.Decide(context.Background(), &dialog.OfferRequest{})
	require.NoError(t, err)
	require.Equal(t, s.Offer().Data(), asked.Data())
	mapped := made(t, sdpbody.Local{Addr: netip.MustParseAddr("::ffff:192.0.2.1"), Streams: l.Streams})
	require.Contains(t, string(mapped.Offer().Data()), "c=IN IP4 192.0.2.1\r\n")
}

func TestAnOfferInAPartOfABodyIsAnswered(t *testing.T) {
	text := "--x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--x\r\nContent-Type: application/sdp\r\n\r\n" + string(offer("m=audio 4 RTP/AVP 0").Data()) + "\r\n--x--\r\n"
	answer, err := made(t, local(speech)).Answer(dialog.NewBody(`multipart/mixed;boundary=x`, []byte(text)))
	require.NoError(t, err)
	require.Equal(t, "m=audio 49174 RTP/AVP 0 a=rtpmap:0 PCMU/8000 a=sendrecv", lines(t, answer))
}

func TestUnusableLocalSessionsAreErrors(t *testing.T) {
	for name, change := range map[string]func(l *sdpbody.Local){
		"no address":          func(l *sdpbody.Local) { l.Addr = netip.Addr{} },
		"any address":         func(l *sdpbody.Local) { l.Addr = netip.IPv6Unspecified() },
		"an address's zone":   func(l *sdpbody.Local) { l.Addr = netip.MustParseAddr("fe80::1%eth0") },
		"a user with a space": func(l *sdpbody.Local) { l.User = "a b" },
		"a port":              func(l *sdpbody.Local) { l.Streams[0].Port = 65536 },
		"no codec":            func(l *sdpbody.Local) { l.Streams[0].Codecs = nil },
		"a kind":              func(l *sdpbody.Local) { l.Streams[0].Kind = "au dio" },
		"a transport":         func(l *sdpbody.Local) { l.Streams[0].Proto = "RTP//AVP" },
		"a direction":         func(l *sdpbody.Local) { l.Streams[0].Direction = "both" },
		"a packet time":       func(l *sdpbody.Local) { l.Streams[0].PTime = time.Microsecond },
		"an attribute":        func(l *sdpbody.Local) { l.Streams[0].Attributes = []string{"x\r\nm=video"} },
		"a payload type":      func(l *sdpbody.Local) { l.Streams[0].Codecs = []sdpbody.Codec{{Payload: 128, Name: "x/1"}} },
		"one number twice":    func(l *sdpbody.Local) { l.Streams[0].Codecs = []sdpbody.Codec{pcmu, {Payload: 0, Name: "x/1"}} },
		"a name":              func(l *sdpbody.Local) { l.Streams[0].Codecs = []sdpbody.Codec{{Name: "PCMU"}} },
		"a clock rate":        func(l *sdpbody.Local) { l.Streams[0].Codecs = []sdpbody.Codec{{Name: "PCMU/fast"}} },
		"parameters":          func(l *sdpbody.Local) { l.Streams[0].Codecs = []sdpbody.Codec{{Name: "x/1", Params: "a\nb"}} },
	} {
		t.Run(name, func(t *testing.T) {
			l := local(audio(4000, pcmu))
			change(&l)
			_, err := sdpbody.New(l)
			require.ErrorIs(t, err, dialog.ErrInvalidArgument)
		})
	}
}

// An answer to any text can be read, has the lines of the offer in their order, and opens
// none that the offer has closed.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(head + strings.Join(audioAndVideo, "\r\n")))
	f.Add([]byte(head + "m=audio 4 RTP/AVP 96 97 96\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:97 opus/48000/2\r\na=fmtp:97 useinbandfec=1\r\na=rtcp-mux\r\n"))
	f.Add([]byte(head + "m=audio 0 RTP/AVP\r\nm=audio x RTP/AVP 0\r\nm=audio 4/2 RTP/AVP 101\r\na=rtpmap:101 telephone-event/8000\r\na=inactive\r\n"))
	streams := []sdpbody.Stream{audio(4000, pcmu, opus, dtmf), video(4002, h261), audio(4004, dtmf), audio(0, pcma)}
	f.Fuzz(func(t *testing.T, text []byte) {
		s := made(t, local(streams...))
		answer, err := s.Answer(dialog.NewBody("application/sdp", text))
		if err != nil || bytes.Equal(answer.Data(), s.Offer().Data()) {
			return
		}
		theirs, err := sdp.Parse(text)
		require.NoError(t, err)
		ours, err := sdp.Parse(answer.Data())
		require.NoError(t, err)
		require.Len(t, ours.Media, len(theirs.Media))
		for i, m := range ours.Media {
			offered := theirs.Media[i]
			require.Equal(t, offered.Kind+offered.Proto, m.Kind+m.Proto)
			require.NotEmpty(t, m.Formats)
			if m.Port == "0" {
				continue
			}
			require.NotEqual(t, "0", offered.Port)
			for _, format := range m.Formats {
				require.Contains(t, offered.Formats, format)
			}
			allowed := offered.Port != "0" && ours.Direction(m)&^(theirs.Direction(offered)<<1&2|theirs.Direction(offered)>>1&1) == 0
			require.True(t, allowed, "direction %v to %v", ours.Direction(m), theirs.Direction(offered))
		}
	})
}

func ExampleSession_Answer() {
	session, err := sdpbody.New(sdpbody.Local{
		Addr:    netip.MustParseAddr("192.0.2.1"),
		Streams: []sdpbody.Stream{{Port: 4000, Codecs: []sdpbody.Codec{sdpbody.PCMA(), sdpbody.DTMF(101)}}},
	})
	if err != nil {
		panic(err)
	}
	answer, err := session.Answer(dialog.NewBody("application/sdp", []byte("v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\n"+
		"c=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0 8 96\r\na=rtpmap:96 telephone-event/8000\r\na=sendonly\r\n")))
	if err != nil {
		panic(err)
	}
	_, streams, _ := strings.Cut(string(answer.Data()), "t=0 0\r\n")
	fmt.Print(strings.ReplaceAll(streams, "\r", ""))
	// Output:
	// m=audio 4000 RTP/AVP 8 96
	// a=rtpmap:8 PCMA/8000
	// a=rtpmap:96 telephone-event/8000
	// a=fmtp:96 0-15
	// a=recvonly
}
