// Package dialogtest is a network in memory, for tests of programs that speak
// SIP.
//
// A [Network] has hosts, a [Host] opens sockets: Host has the methods
// ListenPacket, Listen and DialContext and can be given to a stack in place of
// the operating system's network. Names are the network's own, see [Network.Name]:
// the machine's resolver is never asked. Datagrams pass through a policy that may
// lose, delay, repeat and reorder them; streams are reliable, bounded and can be
// broken. A [NAT] puts hosts with private addresses behind a router that forgets
// its bindings, and a host may move to another address. Taps see all that is sent.
// An [Endpoint] is a scripted SIP peer that uses no stack.
//
// Every wait is a wait on a channel and every delay a timer of package time,
// and no goroutine of this package outlives the call that started it. A network
// made inside a testing/synctest bubble therefore runs on the bubble's clock, and
// a goroutine blocked in one of its sockets is durably blocked. Outside bubbles it
// runs on the wall clock.
//
// All methods of all types may be called from any goroutine.
package dialogtest
