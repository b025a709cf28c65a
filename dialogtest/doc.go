// Package dialogtest is a network in memory, for tests of programs that speak
// SIP.
//
// A [Network] has hosts, and a [Host] opens sockets. Host has the methods
// ListenPacket, Listen and DialContext: a stack can use it in place of the operating
// system's network. The network resolves its own names, see [Network.Name], and never
// uses the machine's resolver. Datagrams pass through a policy that may lose, delay,
// repeat and reorder them. Streams are reliable and bounded, and can be broken. A
// [NAT] puts hosts with private addresses behind a router whose bindings expire, and a
// host may move to another address. Taps see all data that is sent. An [Endpoint] is a
// scripted SIP peer that uses no stack.
//
// Every wait is a wait on a channel, and every delay is a timer of package time.
// No goroutine of this package outlives the call that started it. So a network made
// inside a testing/synctest bubble runs on the bubble's clock, and a goroutine blocked
// in one of its sockets is durably blocked. Outside bubbles a network runs on the wall
// clock.
//
// All methods of all types may be called from any goroutine.
package dialogtest
