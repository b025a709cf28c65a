package dialog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"
	"github.com/pion/sdp/v3"
)

func isSDP(body Body) bool {
	return strings.EqualFold(mediaType(body.ContentType()), typeSDP)
}

// sessionIn is the body of a response that describes a session, or has several
// parts, of which one may; nil for any other.
func sessionIn(res *sip.Response) *SimpleBody {
	body := bodyOf(res)
	if body == nil || !isSDP(body) && !strings.HasPrefix(strings.ToLower(mediaType(body.ContentType())), "multipart/") {
		return nil
	}
	return body
}

// defaultAnswer is the answer to a re-INVITE that nobody decides: our last
// session turned to fit the offer; our last session as the offer when there is
// none; nil when we have no session or the offer cannot be read.
func (d *Dialog) defaultAnswer(req *sip.Request) Body {
	d.mutex.Lock()
	session := d.sessionLocked(nil)
	d.mutex.Unlock()
	return answerToRefresh(req, session.answerTo(bodyOf(req)), session.local)
}

// sessionLocked returns the session of an early dialog, else the call's.
func (d *Dialog) sessionLocked(e *earlyDialog) (s session) {
	d.inForkLocked(e, func() { s = d.session })
	return s
}

// answerTo is defaultAnswer for one session.
func (s session) answerTo(offer *SimpleBody) (answer Body) {
	defer func() {
		if recover() != nil {
			answer = nil // whatever the SDP was, it cannot be read
		}
	}()
	ours, err := s.next()
	if err != nil {
		return nil
	}
	if offer != nil {
		theirs, ok := parseSDP(offer)
		if !ok || !isSDP(offer) {
			return nil
		}
		answerMedia(ours, theirs)
	}
	made, err := marshalSDP(ours)
	if err != nil {
		return nil
	}
	return made
}

// next is our session in its next version, as our application wants it: what the
// peer's hold has made of it is not ours to keep (RFC 6337 5.3). An offer that was
// refused has used its version up (5.2.5).
func (s *session) next() (*sdp.SessionDescription, error) {
	if s.local == nil {
		return nil, ErrNoSession
	}
	ours, ok := parseSDP(s.local)
	if !ok {
		return nil, fmt.Errorf("%w: it cannot be read", ErrNoSession)
	}
	restoreDirections(ours, s.own)
	ours.Origin.SessionVersion = max(ours.Origin.SessionVersion, versionOf(s.said)) + 1
	return ours, nil
}

// versionOf is the version in a session's o= line, zero when that cannot be read.
func versionOf(body Body) uint64 {
	if isNilBody(body) {
		return 0
	}
	if said, ok := parseSDP(body); ok {
		return said.Origin.SessionVersion
	}
	return 0
}

// turned is the offer of our session with other directions.
func (s *session) turned(turn map[string]string) (Body, error) {
	ours, err := s.next()
	if err != nil {
		return nil, err
	}
	for _, media := range ours.MediaDescriptions {
		direction := directionOf(ours, media)
		if next, ok := turn[direction]; ok {
			direction = next
		}
		setDirection(media, direction)
	}
	ours.Attributes = slices.DeleteFunc(ours.Attributes, isDirection)
	return marshalSDP(ours)
}

// refreshed is the offer that changes nothing: the last one, byte by byte (RFC 4028
// 7.4), unless our application wants more than the peer's hold has left of it; nil
// when we have no session.
func (s *session) refreshed() (Body, error) {
	wanted, err := s.next()
	if err != nil {
		return s.local, nil
	}
	stands, _ := parseSDP(s.local)
	for i, media := range wanted.MediaDescriptions {
		if directionOf(wanted, media) != directionOf(stands, stands.MediaDescriptions[i]) {
			return marshalSDP(wanted)
		}
	}
	return s.local, nil
}

// again is the offer of this session, which was the one before now's.
func (s *session) again(now *session) (Body, error) {
	ours, err := s.next()
	if err != nil {
		return nil, err
	}
	current, err := now.next()
	if err != nil {
		return nil, err
	}
	ours.Origin.SessionVersion = current.Origin.SessionVersion
	for i := len(ours.MediaDescriptions); i < len(current.MediaDescriptions); i++ { // RFC 3264 8.2
		ours.MediaDescriptions = append(ours.MediaDescriptions, refusedMedia(current.MediaDescriptions[i]))
	}
	return marshalSDP(ours)
}

func marshalSDP(description *sdp.SessionDescription) (Body, error) {
	data, err := description.Marshal()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSession, err)
	}
	return NewBody(typeSDP, data), nil
}

// parseSDP reads a body; ok is false for what cannot be read, whatever it is.
func parseSDP(body Body) (description *sdp.SessionDescription, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	description = new(sdp.SessionDescription)
	err := description.Unmarshal(body.Data())
	return description, err == nil
}

// answerMedia gives our session the offer's m-lines (RFC 3264 6): those we
// have with the direction mirrored, the others refused.
func answerMedia(ours, theirs *sdp.SessionDescription) {
	media := make([]*sdp.MediaDescription, len(theirs.MediaDescriptions))
	for i, offered := range theirs.MediaDescriptions {
		media[i] = refusedMedia(offered)
		if i < len(ours.MediaDescriptions) {
			if own := matchMedia(ours.MediaDescriptions[i], offered); own != nil {
				wanted := directionOf(ours, own)
				setDirection(own, allowed(mirrored(directionOf(theirs, offered)), wanted))
				media[i] = own
			}
		}
	}
	ours.MediaDescriptions = media
	ours.TimeDescriptions = theirs.TimeDescriptions
	ours.Attributes = slices.DeleteFunc(ours.Attributes, isDirection)
}

// matchMedia returns our m-line cut down to the offered formats, or nil when
// it is another medium, or nothing is left of it.
func matchMedia(own, offered *sdp.MediaDescription) *sdp.MediaDescription {
	if own.MediaName.Media != offered.MediaName.Media || !slices.Equal(own.MediaName.Protos, offered.MediaName.Protos) ||
		own.MediaName.Port.Value == 0 || offered.MediaName.Port.Value == 0 {
		return nil
	}
	own.MediaName.Formats = slices.DeleteFunc(own.MediaName.Formats, func(format string) bool {
		return !slices.Contains(offered.MediaName.Formats, format) || !sameCodec(own, offered, format)
	})
	if len(own.MediaName.Formats) == 0 {
		return nil
	}
	own.Attributes = slices.DeleteFunc(own.Attributes, func(a sdp.Attribute) bool {
		return (a.Key == "rtpmap" || a.Key == "fmtp" || a.Key == "rtcp-fb") && !describes(a, own.MediaName.Formats)
	})
	return own
}

// sameCodec reports whether a payload type is the same codec on both sides, where
// they say: a dynamic one may be bound to any (RFC 3264 5.1).
func sameCodec(own, offered *sdp.MediaDescription, format string) bool {
	a, b := codecOf(own, format), codecOf(offered, format)
	return a == "" || b == "" || strings.EqualFold(a, b)
}

// codecOf is the encoding that rtpmap gives to a payload type; one channel is as good as
// none (RFC 4566 6).
func codecOf(media *sdp.MediaDescription, format string) string {
	for _, a := range media.Attributes {
		if payload, codec, _ := strings.Cut(a.Value, " "); a.Key == "rtpmap" && payload == format {
			return strings.TrimSuffix(strings.TrimSpace(codec), "/1")
		}
	}
	return ""
}

// describes reports whether an attribute is about one of the formats.
func describes(a sdp.Attribute, formats []string) bool {
	format, _, _ := strings.Cut(a.Value, " ")
	return format == "*" || slices.Contains(formats, format)
}

// refusedMedia is an m-line with port 0 (RFC 3264 6).
func refusedMedia(offered *sdp.MediaDescription) *sdp.MediaDescription {
	name := offered.MediaName
	name.Port = sdp.RangedPort{}
	return &sdp.MediaDescription{MediaName: name}
}

func isDirection(a sdp.Attribute) bool {
	switch a.Key {
	case sdp.AttrKeySendRecv, sdp.AttrKeySendOnly, sdp.AttrKeyRecvOnly, sdp.AttrKeyInactive:
		return true
	}
	return false
}

// directionOf is an m-line's direction, or the session's; sendrecv without
// either (RFC 4566 6).
func directionOf(session *sdp.SessionDescription, media *sdp.MediaDescription) string {
	for _, attributes := range [][]sdp.Attribute{media.Attributes, session.Attributes} {
		if i := slices.IndexFunc(attributes, isDirection); i >= 0 {
			return attributes[i].Key
		}
	}
	return sdp.AttrKeySendRecv
}

// mirrored is the direction that answers another (RFC 3264 6.1).
func mirrored(direction string) string {
	switch direction {
	case sdp.AttrKeySendOnly:
		return sdp.AttrKeyRecvOnly
	case sdp.AttrKeyRecvOnly:
		return sdp.AttrKeySendOnly
	default:
		return direction
	}
}

// allowed cuts a direction down to what the application wants: what it has put
// on hold is not resumed because the peer asks for more.
func allowed(direction, wanted string) string {
	sends := direction != sdp.AttrKeyRecvOnly && direction != sdp.AttrKeyInactive &&
		wanted != sdp.AttrKeyRecvOnly && wanted != sdp.AttrKeyInactive
	receives := direction != sdp.AttrKeySendOnly && direction != sdp.AttrKeyInactive &&
		wanted != sdp.AttrKeySendOnly && wanted != sdp.AttrKeyInactive
	switch {
	case sends && receives:
		return sdp.AttrKeySendRecv
	case sends:
		return sdp.AttrKeySendOnly
	case receives:
		return sdp.AttrKeyRecvOnly
	default:
		return sdp.AttrKeyInactive
	}
}

// restoreDirections gives our session the directions that the application last
// chose, not those that the peer's hold left in it.
func restoreDirections(ours *sdp.SessionDescription, own Body) {
	if own == nil {
		return
	}
	chosen, ok := parseSDP(own)
	if !ok {
		return
	}
	for i, media := range ours.MediaDescriptions {
		if i < len(chosen.MediaDescriptions) {
			setDirection(media, directionOf(chosen, chosen.MediaDescriptions[i]))
		}
	}
}

func setDirection(media *sdp.MediaDescription, direction string) {
	media.Attributes = slices.DeleteFunc(media.Attributes, isDirection)
	media.Attributes = append(media.Attributes, sdp.Attribute{Key: direction})
}

// refusedAnswer answers every m-line of an offer with port 0; nil when there is
// none, or it cannot be read.
func refusedAnswer(offer *SimpleBody) Body {
	if offer == nil {
		return nil
	}
	theirs, ok := parseSDP(offer)
	if !ok {
		return nil
	}
	answer := *theirs
	answer.Attributes = nil
	answer.MediaDescriptions = nil
	for _, offered := range theirs.MediaDescriptions {
		answer.MediaDescriptions = append(answer.MediaDescriptions, refusedMedia(offered))
	}
	data, err := answer.Marshal()
	if err != nil {
		return nil
	}
	return NewBody(typeSDP, bytes.Clone(data))
}
