package dialog

import (
	"context"
	"log/slog"
	"net"
	"strconv"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/journal"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sipheader"
)

// logHandler is the handler of the stack's log: Slog, else that of Logger, else nil.
func (c *StackConfig) logHandler() slog.Handler {
	switch {
	case c.Slog != nil:
		return c.Slog.Handler()
	case c.Logger != nil:
		return journal.Lines(c.Logger)
	default:
		return nil
	}
}

// log returns the dialog's logger: each record carries the call's identity.
func (d *Dialog) log() *slog.Logger {
	if d.stack == nil || d.stack.log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.stack.log.With("call_id", d.callID, "local_tag", d.localTag)
}

// logOf returns the logger of a request: each record carries its Call-ID.
func (s *Stack) logOf(tx serverTx) *slog.Logger {
	return s.log.With("call_id", sipheader.CallID(tx.Message()))
}

// The log records of a call at LevelDebug, one line for each event. The transaction layer
// logs the messages. Each record names the call, the peer's address and a method. The
// functions do nothing, and cost nothing, if LevelDebug is off. They may be called with
// the dialog's mutex held, which those called …Locked need.

func (d *Dialog) debugs() bool { return d.stack != nil && d.stack.journal.Debugs() }

func (d *Dialog) note(event, peer, method string, attrs ...slog.Attr) {
	of := []slog.Attr{slog.String("method", method), slog.String("peer", peer)}
	d.log().LogAttrs(context.Background(), slog.LevelDebug, event, append(of, attrs...)...)
}

// peerLocked is where the peer's messages come from, or ours go to before there are any.
func (d *Dialog) peerLocked() string {
	s := d.currentLocked()
	if s.flow != nil {
		return s.flow.RemoteAddr().String()
	}
	target := s.Target()
	if target.Port == 0 {
		return target.Host
	}
	return net.JoinHostPort(target.Host, strconv.Itoa(target.Port))
}

func (d *Dialog) peer() string {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	return d.peerLocked()
}

func (d *Dialog) logPlaced()  { d.logBegun("call placed", "to") }
func (d *Dialog) logArrived() { d.logBegun("call arrived", "from") }

func (d *Dialog) logBegun(event, role string) {
	if !d.debugs() {
		return
	}
	d.mutex.RLock()
	peer, remote := d.peerLocked(), d.currentLocked().remote
	d.mutex.RUnlock()
	d.note(event, peer, string(sip.INVITE), slog.String(role, remote.URIText()))
}

// logStateLocked tells of a change: an INVITE is behind each but the last.
func (d *Dialog) logStateLocked(old DialogState) {
	if !d.debugs() {
		return
	}
	method := string(sip.INVITE)
	if d.state == DialogStateTerminated {
		method = d.causeLocked().Method
	}
	d.note("state changed", d.peerLocked(), method, slog.String("from", old.String()), slog.String("to", d.state.String()))
}

// logEndedLocked tells why, and how long the call was answered.
func (d *Dialog) logEndedLocked() {
	if !d.debugs() {
		return
	}
	cause := d.causeLocked()
	attrs := []slog.Attr{slog.String("by", cause.By.String()), slog.Int("status", cause.Status), slog.String("reason", cause.Reason)}
	if answered := d.entered[DialogStateEstablished]; answered != 0 {
		attrs = append(attrs, slog.Duration("lasted", d.stack.age()-answered))
	}
	if cause.Err != nil {
		attrs = append(attrs, slog.Any("error", cause.Err)) // not turned to text under the lock
	}
	d.note("call ended", d.peerLocked(), cause.Method, attrs...)
}

// logAcceptedLocked logs the answer to an offer of the peer, and its origin.
func (d *Dialog) logAcceptedLocked(method sip.RequestMethod, made offeranswer.Origin) {
	if d.debugs() {
		d.note("offer decided", d.peerLocked(), string(method), slog.Int("status", sip.StatusOK), slog.String("by", made.String()))
	}
}

func (d *Dialog) logAccepted(method sip.RequestMethod, made offeranswer.Origin) {
	d.mutex.RLock()
	defer d.mutex.RUnlock()
	d.logAcceptedLocked(method, made)
}

// logRefused tells that one was refused.
func (d *Dialog) logRefused(method sip.RequestMethod, status int) {
	if d.debugs() {
		d.note("offer decided", d.peer(), string(method), slog.Int("status", status))
	}
}
