package dialog

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/multipart"
	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/internal/sipmsg"
)

// The offers and answers that follow from what the application wants, and the
// versions of all that we say. Nothing that one offer of the peer's takes away is
// lost: see [sdp.Wanted].

// wants is what the application wants of the session. ErrNoSession: it has said
// nothing, or what it said cannot be read.
func (s *session) wants() (*sdp.Wanted, error) {
	if s.wanted != nil {
		return s.wanted, nil
	}
	if isNilBody(s.own) {
		return nil, ErrNoSession
	}
	ours, err := sdp.Parse(s.own.Data())
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be read", ErrNoSession)
	}
	s.wanted = s.wanted.Offered(ours)
	return s.wanted, nil
}

// prefer notes what the application wants, by what it has said: an offer, or the
// answer to theirs.
func (s *session) prefer(ours Body, theirs *SimpleBody) {
	before, _ := s.wants()
	first := s.own == nil
	s.own, s.wanted = ours, nil
	if first && !limitsDirection(theirs) {
		return // most calls have no other: it is read when it is needed
	}
	said, err := sdp.Parse(ours.Data())
	if err != nil {
		return
	}
	if offer, err := parseSDP(theirs); err == nil && offer != nil {
		s.wanted = before.Answered(said, offer)
		return
	}
	s.wanted = before.Offered(said)
}

// sessionLocked returns the session of an early dialog, else the call's.
func (d *Dialog) sessionLocked(e *earlyDialog) (s session) {
	d.inDialogStateLocked(e, func() { s = d.session })
	return s
}

// limitsDirection reports whether an offer may leave its answer no choice of
// direction.
func limitsDirection(offer *SimpleBody) bool {
	return offer != nil && (bytes.Contains(offer.data, []byte("only")) || bytes.Contains(offer.data, []byte("inactive")))
}

// parseSDP reads a body of the peer's; nil for none.
func parseSDP(body *SimpleBody) (*sdp.Description, error) {
	if body == nil {
		return nil, nil
	}
	return sdp.Parse(body.data)
}

// standing is our session as the peer knows it; nil for none, or one that cannot be
// read.
func (s *session) standing() *sdp.Description {
	if isNilBody(s.local) {
		return nil
	}
	stands, err := sdp.Parse(s.local.Data())
	if err != nil {
		return nil
	}
	return stands
}

// next is the session as our application wants it, in its next version: what the
// peer's hold has made of it is not ours to keep (RFC 6337 5.3). An offer that was
// refused has used its version up (5.2.5).
func (s *session) next() (*sdp.Description, error) { return s.nextAfter(s) }

// nextAfter is next where the session is now another one.
func (s *session) nextAfter(now *session) (*sdp.Description, error) {
	wanted, err := s.wants()
	if err != nil {
		return nil, err
	}
	return wanted.Offer(now.standing()).WithVersion(now.version + 1), nil
}

func bodyOfSDP(description *sdp.Description) Body { return NewBody(typeSDP, description.Bytes()) }

// answerTo is what a message of the peer's gets that nobody decides: the answer to
// its offer, or without one an offer. It is nil where there is nothing to say: with
// no session of ours, and to an offer that is not SDP. Errors: sdp.ErrUnreadable,
// *sdp.Unacceptable.
func (s *session) answerTo(offer *SimpleBody) (Body, error) {
	if offer != nil && !isSDP(offer) {
		return nil, nil
	}
	theirs, err := parseSDP(offer)
	if err != nil {
		return nil, err
	}
	wanted, err := s.wants()
	switch {
	case err != nil:
		return nil, nil
	case theirs == nil:
		return bodyOfSDP(wanted.Offer(s.standing()).WithVersion(s.version + 1)), nil
	}
	answer, why := wanted.Answer(theirs)
	if why != nil {
		return nil, why
	}
	return bodyOfSDP(answer.WithVersion(s.version + 1)), nil
}

// answerOrRefusal is answerTo for an offer that cannot be refused otherwise than by
// port 0 in every line: the error says that it is, and that the call has to end (RFC
// 3261 13.2.2.4). One that cannot be read has no answer.
func (s *session) answerOrRefusal(offer *SimpleBody) (Body, error) {
	answer, err := s.answerTo(offer)
	switch {
	case errors.Is(err, sdp.ErrUnreadable):
		return nil, nil
	case err != nil:
		return s.refusing(offer), err
	}
	return answer, nil
}

// defaultAnswer is answerTo for a request: a refresh that changes nothing is answered so
// (RFC 4028 7.4).
func (s *session) defaultAnswer(req *sipmsg.Message, offer *SimpleBody) (Body, error) {
	answer, err := s.answerTo(offer)
	if sessionExpires(req).Interval > 0 && err == nil && s.isUnchanged(answer) {
		return s.local, nil
	}
	return answer, err
}

// isUnchanged reports whether an SDP of ours says what stands, and that can be said
// once more: an offer that came to nothing has been said since, and a version only
// goes up (RFC 6337 5.2.5).
func (s *session) isUnchanged(ours Body) bool {
	stands := s.standing()
	if isNilBody(ours) || stands == nil || !bytes.Equal(s.said.Data(), s.local.Data()) {
		return false
	}
	next, err := sdp.Parse(ours.Data())
	return err == nil && sdp.Same(next, stands)
}

// turned is the offer of our session with other directions.
func (s *session) turned(turn func(sdp.Direction) sdp.Direction) (Body, error) {
	ours, err := s.next()
	if err != nil {
		return nil, err
	}
	return bodyOfSDP(ours.Turned(turn)), nil
}

// refreshed is the offer that changes nothing: the last one, byte by byte (RFC 4028
// 7.4), unless that cannot be said, or our application wants more than the peer has
// left of it; nil when we have no session.
func (s *session) refreshed() (Body, error) {
	next, err := s.next()
	if err != nil {
		return s.local, nil
	}
	if wanted := bodyOfSDP(next); !s.isUnchanged(wanted) {
		return wanted, nil
	}
	return s.local, nil
}

// again is the offer of this session, which was the one before now's.
func (s *session) again(now *session) (Body, error) {
	ours, err := s.nextAfter(now)
	if err != nil {
		return nil, err
	}
	return bodyOfSDP(ours), nil
}

// refusing answers every m-line of an offer with port 0; nil when there is none, or
// it cannot be read.
func (s *session) refusing(offer *SimpleBody) Body {
	theirs, err := parseSDP(offer)
	if err != nil || theirs == nil {
		return nil
	}
	var ours *sdp.Description
	if !isNilBody(s.said) {
		if said, err := sdp.Parse(s.said.Data()); err == nil {
			ours = said.WithVersion(s.version + 1)
		}
	}
	return bodyOfSDP(sdp.Refusal(theirs, ours))
}

// say notes what we are about to say, whatever comes of it.
func (s *session) say(ours Body) {
	if isNilBody(ours) || !isSDP(ours) {
		return
	}
	s.said = ours
	if version, ok := sdp.Version(ours.Data()); ok {
		s.version = max(s.version, version)
	}
}

// numbered is that of the call's session, for who has no lock.
func (d *Dialog) numbered(ours Body) Body {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.session.numbered(ours)
}

// numberLocked is numbered for a response of ours.
func (d *Dialog) numberLocked(res *sip.Response) {
	if isNilBody(d.session.said) {
		return
	}
	if body := bodyOf(res); body != nil {
		res.SetBody(d.session.numbered(body).Data())
	}
}

// numbered returns a body of the application's that is to be said next, with a
// version that does not go back, and goes up with a change (RFC 3264 8), whoever has
// written what was said before.
func (s *session) numbered(ours Body) Body {
	if isNilBody(s.said) || isNilBody(ours) {
		return ours
	}
	part, ok := sessionPart(multipart.Part{Type: ours.ContentType(), Data: ours.Data()})
	version, isNumber := sdp.Version(part.Data)
	if !ok || !isSDPType(part.Type) || !isNumber {
		return ours
	}
	least := s.version
	if !sdp.SameContent(part.Data, s.said.Data()) {
		least++
	}
	if version >= least {
		return ours
	}
	return withVersion(ours, part, least)
}
