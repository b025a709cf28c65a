package dialog

import "github.com/emiago/sipgo/sip"

// handlePrack takes a PRACK (RFC 3262 3).
func (d *Dialog) handlePrack(tx serverTx, req *sip.Request) {
	if _, ok := rackOf(req); !ok {
		d.stack.respond(tx, tx.NewResponse(sip.StatusBadRequest, "RAck missing or malformed"))
		return
	}
	d.stack.answerWith(tx, sip.StatusCallTransactionDoesNotExists)
}
