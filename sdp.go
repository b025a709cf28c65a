package dialog

import (
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
func (d *Dialog) defaultAnswer(req *sip.Request, offer *SimpleBody) Body {
	d.mutex.Lock()
	session := d.sessionLocked(nil)
	d.mutex.Unlock()
	return answerToRefresh(req, session.answerTo(offer), session.unchanged())
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

// unchanged is our session as it stands, nil where that cannot be said once more: an
// offer that came to nothing has been said since, and a version only goes up (RFC 6337
// 5.2.5).
func (s *session) unchanged() Body {
	if versionOf(s.said) > versionOf(s.local) {
		return nil
	}
	return s.local
}

// refreshed is the offer that changes nothing: the last one, byte by byte (RFC 4028
// 7.4), unless that cannot be said, or our application wants more than the peer's hold
// has left of it; nil when we have no session.
func (s *session) refreshed() (Body, error) {
	wanted, err := s.next()
	if err != nil {
		return s.local, nil
	}
	if s.unchanged() == nil {
		return marshalSDP(wanted)
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
