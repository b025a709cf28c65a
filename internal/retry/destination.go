package retry

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/auth"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipuri"
	"sipdialog.example/dialog/internal/transport"
)

// DestinationOf returns the destination of a request that leaves by that flow for its
// next hop.
func DestinationOf(req *sip.Request, flow *transport.Flow, nextHop sip.Uri) auth.Destination {
	return auth.Destination{
		Hop: hopAddress(flow, nextHop), Target: PlaceOf(req.Recipient), Path: pathBehind(req, nextHop),
		From: req.From().Address.Endpoint(), To: req.To().Address.Endpoint(), InDialog: sipheader.ToTag(req) != "",
	}
}

// hopAddress is the address by which a next hop is recognised: its own, also when it
// has opened the connection from another port.
func hopAddress(flow *transport.Flow, nextHop sip.Uri) netip.AddrPort {
	remote := flow.RemoteAddr()
	address := netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	isWebSocket := strings.HasPrefix(flow.Transport(), "WS")
	if host, ok := sipuri.Literal(nextHop.Host); ok && host == address.Addr() && flow.Reliable() && !isWebSocket {
		return netip.AddrPortFrom(host, sipuri.Port(nextHop))
	}
	return address
}

// PlaceOf returns the place that a URI leads to.
func PlaceOf(uri sip.Uri) string { return auth.Place(uri.Host, sipuri.Port(uri)) }

// pathBehind lists the places that a request passes behind its next hop, its target
// the last.
func pathBehind(req *sip.Request, nextHop sip.Uri) []string {
	var path []string
	for h := range sipheader.Named(req, "Route") {
		route := sip.Uri{}
		if r, ok := h.(*sip.RouteHeader); ok {
			route = r.Address
		}
		path = append(path, PlaceOf(route)) // what cannot be read is nowhere known
	}
	path = append(path, PlaceOf(req.Recipient))
	if first := slices.Index(path, PlaceOf(nextHop)); first >= 0 {
		path = slices.Delete(path, first, first+1)
	}
	return path
}
