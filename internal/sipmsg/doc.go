// Package sipmsg reads SIP messages by the grammar of RFC 3261 25.1, over the
// bytes that were received.
//
// A [Message] is one slice of bytes and a table of where its header fields
// are. Nothing is rewritten: what a response has to repeat (RFC 3261 8.2.6.2,
// 12.1.1) is copied from the text that came, by [Message.AppendReply]. The
// structs of sipgo are made on demand ([Message.Request], [Message.Response]).
//
// The parsers of single values ([ParseAddress], [ParseURI], [ParseVia],
// [Params], [Split], [ParseChallenge]) return views, too: strings cut from the
// value. Quoted strings are opaque to them, with every octet that may stand in
// one; names and literals are compared without regard to case (RFC 3261
// 7.3.1); the case of what is kept is kept. None of them panics, and their time
// and memory are linear in the length of the value.
package sipmsg
