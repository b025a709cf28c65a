// Package nat has tests of the library across real routers: network namespaces
// joined by virtual cables, and nftables masquerade between them, as a router at
// home does it. They need Linux and root; `make interop-nat` runs them.
package nat
