// Package txn is the transaction layer: the four machines of RFC 3261 17 with
// the corrections of RFC 6026 and RFC 4320, on the flows of package transport.
//
// Messages are matched, absorbed and retransmitted on the goroutine that read
// them; what concerns the layer above is queued per Call-ID and reaches it in the
// order of arrival, one call at a time, with no lock held. Calls of different
// Call-IDs run in parallel. What timers and lost connections have to tell takes
// the same queue. No goroutine waits, unless for a connection that is being set up:
// there are timers, and workers while there is something queued.
//
// A request whose target fails goes on to the next one (RFC 3263 4.3): a Client is
// what the user sees of the transactions that takes, one after the other.
//
// Each transaction has one mutex; it is not held while a message is written or
// the user is called. Under it that of its Client may be taken, and the innermost
// locks: those of the transaction tables, of the queues and of the counted
// goroutines.
package txn
