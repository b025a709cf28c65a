// Package peers has only tests: calls between the library and programs of others that
// share no code with it, each a process of its own on the loopback interface. They are
// built with the tag interop only, and docs/interop.md has their results. Run them with
// make interop-peers.
package peers
