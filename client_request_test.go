package dialog

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/transport"
	"sipdialog.example/dialog/internal/txn"
)

// cancels is a transaction whose CANCELs are counted.
type cancels int

func (c *cancels) Cancel(...sip.Header)   { *c++ }
func (c *cancels) Provisional() bool      { return false }
func (c *cancels) Flow() *transport.Flow  { return nil }
func (c *cancels) Heard() *transport.Flow { return nil }

// A 2xx that came while the sender of the INVITE was about to tell of its
// transaction was read without it: the call did not know its WebSocket, and the BYE
// dialled.
func TestResponseIsReadWithItsTransactionKnown(t *testing.T) {
	var sent clientTx
	first, telling, resume := make(chan bool, 1), make(chan struct{}), make(chan struct{})
	first <- true
	x := &clientRequest{
		sent: func(tx clientTx) {
			select {
			case <-first:
				close(telling)
				<-resume
			default:
				sent = tx
			}
		},
	}
	tx, written := new(cancels), make(chan struct{})
	go func() { // as the sender does
		defer close(written)
		x.announce(tx)
	}()
	<-telling
	x.announce(tx) // as the first response does
	require.Equal(t, clientTx(tx), sent)
	close(resume)
	<-written
}

// So the first response tells of it by itself, before it is read.
func TestResponseTellsOfItsTransaction(t *testing.T) {
	tx := new(txn.Client)
	var known clientTx
	read := false
	x := &clientRequest{
		sent: func(tx clientTx) { known = tx },
		response: func(*sipmsg.Message) {
			read = true
			require.Equal(t, clientTx(tx), known)
		},
	}
	x.Response(tx, received(sip.NewResponse(180, "Ringing")))
	require.True(t, read)
}

func TestCallGivenUpWhileItsInviteLeavesIsCancelledOnce(t *testing.T) {
	d := &Dialog{ending: &ending{}}
	tx := new(cancels)
	i := &inviteClient{ackSender: ackSender{d: d}}
	i.inviteWritten(tx)
	i.inviteWritten(tx)
	require.Equal(t, cancels(1), *tx)

	re, tx := &reinviteClient{ackSender: ackSender{d: new(Dialog)}, canceled: true}, new(cancels)
	re.written(tx)
	re.written(tx)
	require.Equal(t, cancels(1), *tx)
}
