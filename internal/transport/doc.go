// Package transport owns the sockets of a SIP element. It turns bytes into
// [sip.Message] together with the [Flow] they came by, and sends bytes on a
// flow or to a resolved [Target].
//
// # Flows
//
// A flow is a socket and a peer (UDP), or one connection (TCP, TLS, WebSocket
// with or without TLS). An answer leaves by the flow its request came by, which
// no remote address alone can say: a peer may hold two connections to us, or
// talk to two of our sockets.
//
// # Goroutines
//
// One read loop per socket and per stream, one accept loop per listener, one for
// the handshakes of a connection while they last, and one writer for a stream
// while it has something to write; nothing per message. All are counted, and [Layer.Close] returns when
// they have ended. A read loop never writes to its stream: its answers
// (keep-alives, 400) go through the stream's bounded queue, so two ends that
// do not read cannot stop each other.
//
// # Handlers
//
// The [Handler] runs in the read loop, in the order of arrival per socket, and
// must not block. It may panic: that costs the one message. No function of the
// user's (handler, trace, logger, watchers) is called with a lock held.
//
// # Layers of a connection
//
// A connection that is dialled or accepted first does its handshakes (TLS, the
// upgrade to a WebSocket), within a deadline, and only then becomes a stream. A
// stream cuts what it reads into frames: by the framing of RFC 3261 18.3, or by
// that of RFC 6455 with one SIP message in each of its messages (RFC 7118).
// Everything else, such as the queue and the time limits, is the same.
//
// # What does not parse
//
// A request that is malformed, but has a Via, is answered 400 here without any
// state, never an ACK; a malformed response is dropped. On a stream whose
// framing is lost the connection is closed after the answer (RFC 3261 18.3).
package transport
