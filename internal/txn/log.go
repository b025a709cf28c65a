package txn

import (
	"context"
	"errors"
	"log/slog"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
)

// The messages of transactions are logged at slog.LevelDebug, a line each. A message of
// ours is logged before it leaves, since its answer may arrive before the write has
// returned. 100 and repetitions are left out. Without that level it costs nothing.

func (l *Layer) debugs() bool { return l.log.Enabled(context.Background(), slog.LevelDebug) }

func (l *Layer) note(event, callID string, method sip.RequestMethod, flow *transport.Flow, attrs ...slog.Attr) {
	of := []slog.Attr{
		slog.String("call_id", callID), slog.String("method", string(method)),
		slog.String("peer", flow.RemoteAddr().String()), slog.String("transport", flow.Transport()),
	}
	l.log.LogAttrs(context.Background(), slog.LevelDebug, event, append(of, attrs...)...)
}

// logSent logs a request of ours.
func (l *Layer) logSent(req *draft.Request, flow *transport.Flow) {
	if l.debugs() {
		l.note("request sent", req.CallID(), req.Method, flow, slog.Uint64("cseq", uint64(req.CSeq())))
	}
}

// logCancel logs a CANCEL of ours that is about to be sent.
func (tx *clientTx) logCancel() {
	if tx.layer.debugs() {
		req := draft.Parse(tx.data)
		tx.layer.logSent(req, tx.flow)
		req.Release()
	}
}

// logReceived logs a request of the peer's.
func (l *Layer) logReceived(m *sipmsg.Message, flow *transport.Flow) {
	if l.debugs() {
		l.note("request received", m.CallID, m.Method, flow, slog.Uint64("cseq", uint64(m.CSeq)))
	}
}

// logAnswer logs a response to one.
func (l *Layer) logAnswer(m *sipmsg.Message, flow *transport.Flow, status int, reason string) {
	if status != sip.StatusTrying && l.debugs() {
		l.note("response sent", m.CallID, m.Method, flow, slog.Uint64("cseq", uint64(m.CSeq)),
			slog.Int("status", status), slog.String("reason", reason))
	}
}

// logResponse logs a response to a request of ours.
func (c *Client) logResponse(res *sipmsg.Message) {
	if l := c.layer; res.Status != sip.StatusTrying && l.debugs() {
		l.note("response received", c.callID, c.method, c.Heard(), slog.Uint64("cseq", uint64(res.CSeq)),
			slog.Int("status", res.Status), slog.String("reason", res.Reason))
	}
}

// logUnsent logs a request that could not be written to any target.
func (l *Layer) logUnsent(req *draft.Request, opt RequestOptions, err error) {
	if !l.debugs() || errors.Is(err, ErrWouldWait) { // it is tried again, and may wait
		return
	}
	peer := opt.NextHop.Host // its port is known once it has been found
	if opt.FlowOnly && opt.Flow != nil {
		peer = opt.Flow.RemoteAddr().String()
	}
	l.log.LogAttrs(context.Background(), slog.LevelDebug, "request not sent",
		slog.String("call_id", req.CallID()), slog.String("method", string(req.Method)),
		slog.String("peer", peer), slog.Any("error", err))
}

// logUnanswered logs a response that could not be written.
func (l *Layer) logUnanswered(m *sipmsg.Message, status int, flow *transport.Flow, err error) {
	if l.debugs() {
		l.note("response not sent", m.CallID, m.Method, flow, slog.Int("status", status), slog.Any("error", err))
	}
}

// logFailed logs a request without a final response.
func (c *Client) logFailed(err error) {
	if c.layer.debugs() {
		c.layer.note("request failed", c.callID, c.method, c.Flow(), slog.Any("error", err))
	}
}
