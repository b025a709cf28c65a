package dialog

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogstate"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/errtext"
	"sipdialog.example/dialog/internal/nat"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sessiontimer"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// dialogState is the state of one dialog: the state of RFC 3261 12, and all other fields
// that the early dialogs of an INVITE do not share. Each early dialog has its own, and the
// call has a current one. The mutex of its Dialog guards it.
type dialogState struct {
	dialogstate.State

	// d is set at construction.
	d *Dialog

	peerIdentity
	// flow is the one by which the peer's latest INVITE, or response to ours, arrived.
	// nat is true when its Contact does not lead there, inboundConn when it was an
	// INVITE: the peer may have opened the connection. flowNamed is true when the
	// application has named the flow: nothing else leads to the peer.
	flow                        *transport.Flow
	nat, inboundConn, flowNamed bool
	detour                      *detour // nil: none
	negotiation                 offeranswer.Negotiation
	// peerPackages are the Info Packages that the peer takes (RFC 6086); nil when it has
	// not said.
	peerPackages []string
	// updateOut is an UPDATE of ours, updateIn one of the peer, that has no final
	// answer yet.
	updateOut *updateClient
	updateIn  *updateServer
	// reliable sends the provisional responses to the peer's INVITE that must not be lost;
	// nil before the first.
	reliable *reliableServer
}

// currentLocked returns the state in which the call sends: of the current early dialog,
// else of the call. A dialog that has none gets it from what is published of it, as one
// that is about to send its INVITE does. Readers may be the first to ask.
func (d *Dialog) currentLocked() *dialogState {
	if s := d.current.Load(); s != nil {
		return s
	}
	d.current.CompareAndSwap(nil, &dialogState{d: d, State: dialogstate.Restore(dialogstate.View{
		LocalTag: d.localTag, Target: d.remoteTarget, RouteSet: d.routeSet,
	})})
	return d.current.Load()
}

// setCurrentLocked makes another state the current one, and keeps its flow open.
func (d *Dialog) setCurrentLocked(s *dialogState) {
	d.current.Store(s)
	s.publishLocked()
	d.keepLocked()
}

// publishLocked shows target and route set of the current state.
func (s *dialogState) publishLocked() {
	if s.d.current.Load() == s {
		s.d.remoteTarget, s.d.routeSet = s.Target(), s.RouteSet()
	}
}

// stateOfLocked returns the state of an early dialog, or the current one for nil.
func (d *Dialog) stateOfLocked(e *earlyDialog) *dialogState {
	if e != nil {
		return e.state
	}
	return d.currentLocked()
}

// saidBy returns the dialog state in a message of the peer; tag is the peer's.
func saidBy(msg sipheader.Message, tag string) dialogstate.Message {
	return dialogstate.Message{Tag: tag, CSeq: sipheader.CSeq(msg), Targets: sipheader.Contacts(msg), Routes: sipheader.RecordRoutes(msg)}
}

// learnLocked takes target, route set and Info Packages from a response that makes or
// confirms the dialog (RFC 3261 12.1.2, 13.2.2.4).
func (s *dialogState) learnLocked(res *sipmsg.Message) {
	s.LearnResponse(saidBy(res, sipheader.ToTag(res)))
	s.publishLocked()
	s.learnPackagesLocked(res)
}

// refreshTargetLocked sets the target from a re-INVITE or UPDATE, or a 2xx to one (RFC
// 3261 12.2.1.2, 12.2.2), and the peer's identity and packages.
func (s *dialogState) refreshTargetLocked(msg sipheader.Message) {
	msg = learnable(msg)
	s.Refresh(sipheader.Contacts(msg))
	s.refreshedLocked(msg)
}

// answeredAtLocked is refreshTargetLocked for the response to a request of ours that was
// sent to target (RFC 6141 4.8).
func (s *dialogState) answeredAtLocked(target sip.Uri, res *sipmsg.Message) {
	msg := learnable(res)
	s.RefreshBy(sipheader.Contacts(msg), target)
	s.refreshedLocked(msg)
}

func (s *dialogState) refreshedLocked(msg sipheader.Message) {
	s.publishLocked()
	s.learnPackagesLocked(msg)
	s.learnIdentityLocked(msg)
}

// nextRequestLocked builds the next request of the dialog: reading and raising the CSeq
// is one critical section.
//
// Errors: ErrTimeout (a call of the Store has used all numbers that are reserved there).
func (s *dialogState) nextRequestLocked(method sip.RequestMethod) (*draft.Request, error) {
	next, ok := s.Next(method)
	if !ok {
		return nil, errtext.Explained(ErrTimeout, errStoreSilent)
	}
	s.drewLocked()
	return s.requestLocked(next), nil
}

// requestLocked builds a request inside the dialog (RFC 3261 12.2.1.1).
func (s *dialogState) requestLocked(r dialogstate.Request) *draft.Request {
	d := s.d
	req := draft.New(r.Method, &r.URI)
	for i := range r.Route {
		req.AddRoute(&r.Route[i])
	}
	d.local.AddTo(req, "From", r.FromTag)
	s.remote.AddTo(req, "To", r.ToTag)
	req.Add("Call-ID", d.callID)
	req.AddCSeq(r.CSeq)
	req.SetMaxForwards(70)
	if agent := d.config().userAgent(); agent != "" {
		req.Add("User-Agent", agent)
	}
	return req
}

// optionsLocked returns the options with which requests of this dialog are sent.
func (s *dialogState) optionsLocked() txn.RequestOptions {
	opt := txn.RequestOptions{Flow: s.flowLocked(), NextHop: s.Hop(), Prepare: s.prepare}
	if opt.Flow != nil && opt.Flow == s.natFlowLocked() {
		opt.FlowOnly, opt.NoStream = s.flowNamed || nat.IsUnreachable(s.Target(), natFlow(opt.Flow)), true
		opt.Reopen = !s.flowNamed
	}
	return opt
}

// prepare fills in the headers that depend on the address by which the peer reaches us:
// the Contact of requests that make or refresh a dialog, and the host in the From of a
// first INVITE.
func (s *dialogState) prepare(req *draft.Request, local transport.Local) {
	switch req.Method {
	case sip.INVITE, sip.UPDATE, sip.REFER, sip.NOTIFY, sip.SUBSCRIBE:
	default:
		return
	}
	d := s.d
	d.mutex.Lock()
	defer d.mutex.Unlock()
	if req.ToTag() != "" {
		d.timer.NoteMinSE(sessiontimer.ParseMinSE(req.Value("Min-SE")))
	} else if req.IsSIPS() {
		d.secure = true
	}
	if d.local.LacksHost() {
		caller := d.local.NameAddr()
		caller.URI.Host = sipuri.Bracketed(local.Host)
		d.local = caller.Party()
		req.Set("From", caller.From(d.localTag).Value())
	}
	req.Remove("Contact")
	req.Add("Contact", s.contactTextLocked(local))
}

// learnable is a message, or of a large one the fields that a dialog learns from.
func learnable(msg sipheader.Message) sipheader.Message {
	return sipheader.Excerpt(msg, "From", "Contact", "Recv-Info", "P-Asserted-Identity", "Privacy")
}
