// Package nat tests the library across real routers: network namespaces that are
// joined by virtual cables, with nftables masquerade between them, as in a home
// router. The tests need Linux and root; `make interop-nat` runs them.
package nat
