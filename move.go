package dialog

import (
	"context"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
)

// MovePolicy sets when the flow to a peer behind a NAT moves to the source of one of its
// messages. The message must be in order for the call: it has the Call-ID and both tags,
// and the next CSeq if it is a request, or the branch of our request if it is a response.
// With StackConfig.MoveCredentials a request beyond the policy needs credentials.
type MovePolicy int

const (
	// MoveInOrder: with each such message. A NAT that has forgotten a flow gives it
	// another port, and a phone in another network has another address.
	MoveInOrder MovePolicy = iota
	// MoveSameAddress: if the IP address stays the same, as behind one NAT; or with an
	// accepted re-INVITE or UPDATE.
	MoveSameAddress
	// MoveNever: only with an accepted re-INVITE or UPDATE.
	MoveNever
)

// allows reports whether the flow may change from one to another.
func (p MovePolicy) allows(from, to *transport.Flow) bool {
	switch p {
	case MoveNever:
		return false
	case MoveSameAddress:
		return from == nil || from.RemoteAddr().Addr() == to.RemoteAddr().Addr()
	}
	return true
}

// allowsTarget is allows for the Contact of the peer.
func (p MovePolicy) allowsTarget(from, to sip.Uri) bool {
	switch p {
	case MoveNever:
		return sameHost(from, to) && sipuri.Port(from) == sipuri.Port(to) &&
			strings.EqualFold(from.Scheme, to.Scheme) && strings.EqualFold(sipuri.Transport(from), sipuri.Transport(to))
	case MoveSameAddress:
		return sameHost(from, to)
	}
	return true
}

// sameHost compares the hosts of two URIs, and the hosts that requests for them go to: a
// maddr differs from the host in front of it.
func sameHost(a, b sip.Uri) bool {
	return strings.EqualFold(a.Host, b.Host) && strings.EqualFold(sipuri.Host(a), sipuri.Host(b))
}

// reachedBy records that a request of the peer, in order, has arrived on another flow: a
// NAT has forgotten the old one, or its connection is lost, perhaps without notice. A peer
// behind a NAT, or with a WebSocket, is reached on this flow from now on; other peers at
// their Contact.
func (d *Dialog) reachedBy(e *earlyDialog, tx serverTx) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.stateOfLocked(e).reachedLocked(tx.Message(), tx.Flow())
}

func (s *dialogState) reachedLocked(req *sipmsg.Message, f *transport.Flow) {
	if s.followsLocked(req, f) {
		s.moveLocked(f)
	}
}

// followsLocked reports whether our requests use the flow of this request of the peer, if
// the request may move them. A call that was restored without a flow takes a WebSocket.
func (s *dialogState) followsLocked(req *sipmsg.Message, f *transport.Flow) bool {
	return f != nil && ((s.flow == nil || isWebSocket(s.flow)) && isWebSocket(f) || s.followsPeerLocked() && req.Vias == 1)
}

// followsPeerLocked reports whether our requests go to the source of the peer's messages.
func (s *dialogState) followsPeerLocked() bool { return s.nat || s.flowNamed }

// heardBy is reachedBy for a response to a request of ours.
func (d *Dialog) heardBy(e *earlyDialog, res *sipmsg.Message, f *transport.Flow) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	s := d.stateOfLocked(e)
	if (s.followsPeerLocked() || isWebSocket(s.flow) && isWebSocket(f)) && sipheader.ToTag(res) == s.RemoteTag() {
		s.moveLocked(f)
	}
}

// moveLocked makes requests use another flow, if the policy permits it.
func (s *dialogState) moveLocked(f *transport.Flow) {
	if !s.flow.Same(f) && s.d.config().MoveFlow.allows(s.flow, f) {
		s.goByLocked(f)
	}
}

// goByLocked makes our requests use another flow, and also the pending responses to the
// peer's requests.
func (s *dialogState) goByLocked(f *transport.Flow) {
	if isEncrypted(s.flow) && !isEncrypted(f) {
		return // RFC 3261 26.2.2
	}
	d := s.d
	s.flow = f
	d.keepLocked()
	d.changedIfKeptLocked()
	if s.updateIn != nil {
		s.updateIn.moveLocked(f)
	}
	if s != d.currentLocked() {
		return // another fork of ours: what follows belongs to the call
	}
	if d.incoming.tx != nil {
		d.incoming.tx.ReplyBy(f)
	}
	if d.reinviteIn != nil {
		d.reinviteIn.moveLocked(f)
	}
	for _, u := range d.retransmissions {
		u.tx.ReplyBy(f)
	}
}

// mover has the credentials of the peer that may move a call, from the application.
type mover struct {
	realm string
	login auth.Login
	// isNobody is true for a peer without credentials.
	isNobody bool
	// uses is guarded by the dialog's mutex.
	uses auth.Uses
}

// keepsPlace answers a request that would move the call with 401 (RFC 3261 22.2), if
// MoveFlow does not permit the move and the request does not prove that the peer has sent
// it. It reports false if the request should be handled. A BYE moves nothing, and a peer
// without its password must still be able to end its call.
//
// The CSeq of a refused request is not recorded: otherwise a stranger could use up the
// numbers.
func (d *Dialog) keepsPlace(tx serverTx, req *sipmsg.Message, e *earlyDialog) (answered bool) {
	if d.config().MoveCredentials == nil || req.Method == sip.BYE {
		return false
	}
	d.mutex.Lock()
	s := d.stateOfLocked(e)
	moves := !s.IsLate(req.Method, sipheader.CSeq(req)) && s.movesBeyondLocked(req, tx.Flow())
	who := d.mover
	d.mutex.Unlock()
	switch {
	case !moves || who != nil && who.isNobody:
		return false
	case who == nil:
		d.askMover(tx, req)
		return true
	}
	verdict := d.verifyMove(tx, req, e, who)
	if verdict == auth.Proved {
		return false
	}
	d.log().Debug("move challenged", "method", string(req.Method), "from", req.Source, "stale", verdict == auth.Stale)
	var challenges []sip.Header
	for _, value := range d.stack.verifier.Challenge(who.realm, d.ownHalf(), verdict == auth.Stale) {
		challenges = append(challenges, sip.NewHeader("WWW-Authenticate", value))
	}
	d.stack.answerWith(tx, sip.StatusUnauthorized, challenges...)
	return true
}

// movesBeyondLocked reports whether a request would change the destination of our requests
// more than MoveFlow permits: by its flow, or as a re-INVITE or UPDATE by its Contact.
func (s *dialogState) movesBeyondLocked(req *sipmsg.Message, f *transport.Flow) bool {
	policy, refreshes := s.d.config().MoveFlow, req.Method == sip.INVITE || req.Method == sip.UPDATE
	if (refreshes || s.followsLocked(req, f)) && !s.flow.Same(f) && !policy.allows(s.flow, f) {
		return true
	}
	targets := sipheader.Contacts(req)
	return refreshes && len(targets) > 0 && !policy.allowsTarget(s.Target(), targets[0])
}

// verifyMove checks the credentials of a request, and moves the flow if they are right.
func (d *Dialog) verifyMove(tx serverTx, req *sipmsg.Message, e *earlyDialog, who *mover) auth.Verdict {
	proof, verdict := d.stack.verifier.Check(string(req.Method), req.Values("Authorization"), who.realm, who.login, d.ownHalf())
	d.mutex.Lock()
	defer d.mutex.Unlock()
	switch {
	case verdict == auth.Proved && !who.uses.Take(proof):
		return auth.Stale
	case verdict == auth.Proved:
		if s := d.stateOfLocked(e); s.followsLocked(req, tx.Flow()) {
			s.goByLocked(tx.Flow())
		}
	}
	return verdict
}

// ownHalf is our half of the call's key.
func (d *Dialog) ownHalf() string { return d.callID + " " + d.localTag }

// askMover asks the application for the peer's credentials, once for each call, and then
// handles the request again.
func (d *Dialog) askMover(tx serverTx, req *sipmsg.Message) {
	if req.Method == sip.INVITE {
		tx.Trying()
	}
	q := d.stack.newDecision(tx, d.learnMover, func(a Answer) {
		if a.Status == sip.StatusOK && !tx.Later(func() { d.handleRequest(tx, req) }) {
			a = Answer{Status: sip.StatusServiceUnavailable}
		}
		if a.Status != sip.StatusOK {
			d.stack.respond(tx, a.response(tx, d.contactTo))
		}
	})
	if !d.requestBox().Offer(q.run) {
		q.answer(Answer{Status: sip.StatusServiceUnavailable})
	}
}

// learnMover is a RequestHandler, whose 200 means that the peer is known.
func (d *Dialog) learnMover(ctx context.Context, _ *sip.Request) Answer {
	d.mutex.RLock()
	known := d.mover != nil // a request before has asked
	d.mutex.RUnlock()
	if known {
		return Answer{}
	}
	realm, c, ok := d.config().MoveCredentials(ctx, d)
	if err := firstError(checkText("realm", realm), checkText("user name", c.Username)); err != nil {
		d.log().Error("credentials from the application are unusable", "error", err)
		return Answer{Status: sip.StatusInternalServerError}
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.mover = &mover{realm: realm, login: auth.Login(c), isNobody: !ok}
	return Answer{}
}
