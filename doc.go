// Package dialog manages SIP calls: it places, accepts, changes, transfers and ends
// them. It uses package sipgo's message types, and its own transactions and sockets.
//
// # Life of a call
//
// A [Stack] listens on a socket. [Stack.NewInvite] places a call and returns a
// [Dialog]; [Stack.OnIncomingDialog] delivers incoming calls.
//
//	UAC  NewInvite     Init -> Trying
//	     180           -> Ringing
//	     200           ACK -> Established        WaitAnswer returns
//	UAS  INVITE        100, 180 -> Ringing       OnIncomingDialog
//	     Accept        -> Established, 200       repeated until the ACK comes
//	both Bye, Close    BYE -> Terminated
//
// If the application drops a call (by the end of a context, Close or Shutdown), the
// peer gets its CANCEL, BYE or final response in the background. A 2xx that crosses
// it gets its ACK and BYE.
//
// # Goroutines
//
// Every method may be called from any goroutine and from inside any callback,
// at any time: it returns a result or a typed error. (StackConfig.Trace is not a
// callback in this sense: it runs while messages are written and must not call
// methods.) An idle established call has no goroutine, and no timer unless a session
// timer was negotiated (RFC 4028). The comment of a blocking method says on what it
// blocks; the method ends with its context.
//
// # Callbacks
//
// Notifications ([Dialog.OnStateChange], [Dialog.OnBody], [Dialog.OnFork],
// [Dialog.OnDTMF]) come one at a time for each dialog, in the order of the events, to
// callbacks in the order of their registration; Terminated is the last. The
// notifications of a REFER ([ReferSubscription.OnProgress]) have their own order. A
// method that causes a notification waits until it has been delivered, with no lock
// held, but no longer than its context or StackConfig.GraceTime. Inside a callback it
// does not wait.
//
// Decisions run on their own goroutine and may block. [Stack.OnIncomingDialog] and
// [Stack.OnIncomingRefer] have no time limit. Functions for which the peer waits
// ([Dialog.OnOffer], [Dialog.OnRefer], [Dialog.OnRequest] and others) have the
// time limit that their comments give.
//
// No callback runs with a lock held. A callback that panics, or calls runtime.Goexit,
// ends only itself: it is logged, and a peer that waits for its decision gets 500.
//
// # Locks
//
// This section is for maintainers. Stack.mutex comes before Dialog.mutex, and that
// before a mailbox. The mutexes of two dialogs are never held at once. No callback, no
// network operation, no logger of the application and no blocking send runs under a
// lock. docs/concurrency.md says why.
package dialog
