package txn

import (
	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/sipmsg"
)

// maxForwards is the value RFC 3261 8.1.1.6 recommends.
const maxForwards = 70

// Cancel asks for an INVITE to be cancelled (RFC 3261 9.1): CANCEL leaves as
// soon as a provisional response has come, and never after a final one. When
// no final response has come 64*T1 after it, the outcome is ErrCancelled. No other target
// is tried after Cancel. extra is added to the CANCEL, a Reason
// for example. Only the first call counts; it has no effect on other requests. It
// does not block.
func (c *Client) Cancel(extra ...sip.Header) {
	if c.method != sip.INVITE {
		return
	}
	c.mu.Lock()
	tx, stop := c.tx, c.stop
	c.cancelled = true
	c.mu.Unlock()
	if stop != nil {
		stop()
	}
	tx.perform(tx.askCancel(extra))
}

func (tx *clientTx) askCancel(extra []sip.Header) output {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.cancelled || !tx.waitingLocked() {
		return output{}
	}
	tx.cancelled, tx.extra = true, extra
	if tx.state != stateProceeding {
		return output{} // held until a provisional response comes
	}
	return output{cancel: tx.cancelLocked()}
}

// provisionalLocked notes a provisional response. The first one lets a CANCEL
// go that was held for it.
func (tx *clientTx) provisionalLocked() *clientTx {
	first := !tx.provisional
	tx.provisional = true
	if !first || !tx.cancelled {
		return nil
	}
	return tx.cancelLocked()
}

// cancelLocked returns the CANCEL's own transaction, and bounds the INVITE's.
func (tx *clientTx) cancelLocked() *clientTx {
	tx.retry.stopLocked() // CANCEL keeps the way of the answer open
	tx.limit.armLocked(tx.layer.timers.limit(), eventLimit)
	req := draft.Derive(tx.data, sip.CANCEL, maxForwards)
	defer req.Release()
	for _, h := range tx.extra {
		req.AddHeader(h)
	}
	return tx.layer.newClient(outgoing{req: req, flow: tx.flow, branch: branchIn(tx.key), data: req.Text()}, nil)
}

// ackLocked returns the ACK to a failure response, the same for each
// repetition (RFC 3261 17.1.1.3).
func (tx *clientTx) ackLocked(res *sipmsg.Message) []byte {
	if tx.ack == nil {
		req := draft.Derive(tx.data, sip.ACK, maxForwards)
		to, _ := res.Value("To") // as it came
		req.Set("To", to)
		tx.ack = req.Text()
		req.Release()
	}
	return tx.ack
}
