// Package dialog manages SIP calls: it places them, takes them, changes them,
// transfers them and ends them, over package sipgo's messages and its own
// transactions and sockets.
//
// # Life of a call
//
// A [Stack] listens on a socket. [Stack.NewInvite] places a call and returns a
// [Dialog]; a call that arrives comes with [Stack.OnIncomingDialog].
//
//	UAC  NewInvite     Init -> Trying
//	     180           -> Ringing
//	     200           ACK -> Established        WaitAnswer returns
//	UAS  INVITE        100, 180 -> Ringing       OnIncomingDialog
//	     Accept        -> Established, 200       repeated until the ACK comes
//	both Bye, Close    BYE -> Terminated
//
// Whichever way an application stops caring (the end of a context, Close,
// Shutdown), the peer gets its CANCEL, BYE or final answer, and a 2xx that
// crosses it its ACK and BYE, in the background.
//
// # Goroutines
//
// Every method may be called from any goroutine and from inside any callback,
// at any time: it returns a result or a typed error. (Trace of a StackConfig is no
// callback: it is called while messages are written and must not call back.) An established call in which nothing happens owns no
// goroutine, and no timer unless a session timer was agreed (RFC 4028). A method
// that blocks says on what, and ends with its context.
//
// # Callbacks
//
// Notifications ([Dialog.OnStateChange], [Dialog.OnBody], [Dialog.OnFork],
// [Dialog.OnDTMF]) come one at a time for each dialog, in the order in which
// things happened, to callbacks in the order of their registration; Terminated is
// the last. Those of a REFER ([ReferSubscription.OnProgress]) do likewise, for
// themselves. A method that causes one waits, holding nothing, until it has been
// delivered, unless it was called inside a callback, and no longer than its context
// or StackConfig.GraceTime.
//
// Decisions run on a goroutine of their own and may block: [Stack.OnIncomingDialog]
// and [Stack.OnIncomingRefer] as long as they like, those for which the peer
// waits ([Dialog.OnOffer], [Stack.OnReferRequest], [Dialog.OnRequest] and others) as
// long as each of them says.
//
// No callback runs with a lock held. One that panics, or calls runtime.Goexit,
// costs itself only: it is logged, and where the peer waits for it, it gets
// 500.
//
// # Locks
//
// For those who change this package: Stack.mutex comes before Dialog.mutex,
// and that before a mailbox; no two dialogs' mutexes are held at once. Under a
// lock there is no callback, no network, no logger of the application's and no
// send that may block. docs/concurrency.md says why.
package dialog
