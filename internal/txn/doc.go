// Package txn is the transaction layer: the four machines of RFC 3261 17 with
// the corrections of RFC 6026 and RFC 4320, on the flows of package transport.
//
// Messages are matched, absorbed and retransmitted on the goroutine that read
// them; what concerns the layer above is queued per Call-ID and reaches it in the
// order of arrival, one call at a time, with no lock held. Calls of different
// Call-IDs run in parallel. What timers and lost connections have to tell takes
// the same queue. No goroutine waits: there are timers, and workers while there is
// something queued.
//
// Each transaction has one mutex; it is not held while a message is written or
// the user is called. Under it only the innermost locks are taken: those of the
// transaction tables and of the queues.
package txn
