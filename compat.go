package dialog

// The types of this file did nothing in the package this one replaces. They
// are kept so that code that names them compiles.

// Transaction is empty.
//
// Deprecated: transactions are internal.
type Transaction struct{}

// TransactionPool is empty.
//
// Deprecated: transactions are internal.
type TransactionPool struct{}

// NewTransaction returns an empty Transaction, never nil.
//
// Deprecated: transactions are internal.
func NewTransaction(_ *Dialog, _ TxType) *Transaction { return &Transaction{} }

// TxState named the state of a transaction.
//
// Deprecated: transactions are internal.
type TxState int

// The states of RFC 3261 17.
//
// Deprecated: transactions are internal.
const (
	TxCalling TxState = iota
	TxProceeding
	TxCompleted
	TxTerminated
	TxConfirmed
	TxTrying
)

// String returns the state's name, or "Unknown".
func (s TxState) String() string {
	return nameOf(int(s), "Calling", "Proceeding", "Completed", "Terminated", "Confirmed", "Trying")
}

// TxType named the kind of a transaction.
//
// Deprecated: transactions are internal.
type TxType int

// The four machines of RFC 3261 17.
//
// Deprecated: transactions are internal.
const (
	TxTypeInviteClient TxType = iota
	TxTypeInviteServer
	TxTypeNonInviteClient
	TxTypeNonInviteServer
)

// String returns the type's name, or "Unknown".
func (t TxType) String() string {
	return nameOf(int(t), "InviteClient", "InviteServer", "NonInviteClient", "NonInviteServer")
}

func nameOf(i int, names ...string) string {
	if i < 0 || i >= len(names) {
		return "Unknown"
	}
	return names[i]
}
