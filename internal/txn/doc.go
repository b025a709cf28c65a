// Package txn is the transaction layer: the four machines of RFC 3261 17 with
// the corrections of RFC 6026 and RFC 4320, on the flows of package transport.
//
// Messages are matched, absorbed and retransmitted on the goroutine that read
// them; deliveries to the layer above are queued per Call-ID and reach it in the
// order of arrival, one at a time, with no lock held. Those of different Call-IDs run in
// parallel. Timeouts and lost connections are delivered through the same queue. No
// goroutine waits, except for a connection that is being set up: there are timers, and
// workers while something is queued.
//
// A request whose target fails is sent to the next one (RFC 3263 4.3), each time in a new
// transaction: for the user all of them are one Client.
//
// Each transaction has one mutex; it is not held while a message is written or
// the user is called. While it is held, that of its Client may be taken, and the innermost
// locks: those of the transaction tables, of the queues and of the counted
// goroutines.
package txn
