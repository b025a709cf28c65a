// Package draft makes our own requests as text. A request is a start line, header fields
// and a body in buffers that are used again; once it is complete, its text is one slice.
// To send a request again, or an ACK or CANCEL to it, its text is read and changed: no
// other form of it is kept.
//
// What is written here has been checked before (RFC 3261 25.1); but nothing that is put
// into a field, whatever it is, ends its line.
package draft
