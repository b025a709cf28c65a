package refersub_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/refersub"
)

// A REFER that is sent again, with credentials, has the CSeq that the peer has accepted.
func TestANOTIFYNamesTheREFERByItsLatestCSeq(t *testing.T) {
	var b refersub.Book[string]
	b.AddSent("2 REFER", "a")
	b.AddSent("3 REFER", "b")
	require.Equal(t, "a", b.NamedSent("refer"), "the first")
	require.Equal(t, "b", b.NamedSent("refer;id=3"))
	b.Renumber("2 REFER", "4 REFER")
	require.Equal(t, "a", b.NamedSent("refer"), "still the first")
	require.Equal(t, "a", b.NamedSent("refer;id=4"))
	require.Empty(t, b.NamedSent("refer;id=2"))
	b.Renumber("3 REFER", "5 REFER")
	require.Equal(t, map[string]string{"4 REFER": "a", "5 REFER": "b"}, b.Sent())
	delete(b.Sent(), "4 REFER")
	b.AddSent("6 REFER", "c")
	require.Empty(t, b.NamedSent("refer"), "the first has ended")
}

func TestREFERsReceivedAreBoundedWithThoseUndecided(t *testing.T) {
	var b refersub.Book[string]
	require.True(t, b.Arrives(0, 2))
	require.True(t, b.Arrives(0, 2))
	require.False(t, b.Arrives(0, 2), "two have no response")
	b.Decided()
	require.False(t, b.Arrives(1, 2), "one was accepted")
	require.True(t, b.Arrives(0, 2), "it was refused")
}

// RFC 5057 4: what keeps a dialog after its session.
func TestREFERsSentAndNOTIFYsKeepADialog(t *testing.T) {
	var b refersub.Book[string]
	require.False(t, b.InUse())
	b.AddSent("2 REFER", "a")
	require.True(t, b.InUse())
	b.Notifies()
	delete(b.Sent(), "2 REFER")
	require.True(t, b.InUse(), "a NOTIFY has no response")
	b.Notified()
	require.False(t, b.InUse())
	b.Notifies()
	b.Ends()
	require.False(t, b.InUse())
	b.Notified()
	b.Notifies()
	require.True(t, b.InUse(), "a response after the end is not counted")
}

func TestADialogWithoutREFERsHasNoBook(t *testing.T) {
	var none *refersub.Book[string]
	require.Empty(t, none.Sent())
	require.Empty(t, none.NamedSent("refer;id=2"))
	require.False(t, none.InUse())
	require.Empty(t, none.Asked())
	none.Ends()
}
