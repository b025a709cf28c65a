package nat

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// The machines of the tests. All phones have the same private address, each behind its
// own router.
const (
	serverIP  = "203.0.113.200"
	routerIP  = "203.0.113.%d" // from 1
	gatewayIP = "192.168.0.1"
	phoneIP   = "192.168.0.2"
	newIP     = "192.168.0.3" // of a phone that has moved
)

// world is an internet with a server on it.
type world struct {
	t       *testing.T
	core    *namespace // a switch
	server  *namespace
	routers int
}

// machine makes a namespace that is closed at the end of the test.
func machine(t *testing.T) *namespace {
	n, err := newNamespace()
	require.NoError(t, err)
	t.Cleanup(n.close)
	return n
}

func newWorld(t *testing.T) *world {
	t.Parallel()
	w := &world{t: t, core: machine(t), server: machine(t)}
	require.NoError(t, w.core.ip("link add name switch type bridge\nlink set switch up"))
	w.attach(w.server, "server", serverIP)
	return w
}

// attach connects a machine to the internet; its interface is called "outside".
func (w *world) attach(n *namespace, name, ip string) {
	w.t.Helper()
	require.NoError(w.t, cable(w.core, name, n, "outside"))
	require.NoError(w.t, w.core.ip(fmt.Sprintf("link set %[1]s master switch\nlink set %[1]s up", name)))
	require.NoError(w.t, n.ip("addr add "+ip+"/24 dev outside\nlink set outside up"))
}

// router is a router with a phone behind it.
type router struct {
	*namespace
	t      *testing.T
	inside *namespace // the phone's machine
	public netip.Addr
	epoch  int
}

// The rules of a home router: ports are changed, and unsolicited packets are dropped
// silently. Connections are marked with their epoch.
const rules = `
table ip home {
	chain translate {
		type nat hook postrouting priority srcnat;
		oifname "outside" masquerade fully-random
	}
	chain epoch {
		ct state new ct mark set 1
	}
	chain forward {
		type filter hook forward priority filter;
		jump epoch
		iifname "outside" ct state new drop
	}
	chain input {
		type filter hook input priority filter;
		iifname "outside" drop
	}
}
`

// router makes a router, and a machine behind it. UDP bindings last udpSeconds.
func (w *world) router(udpSeconds int) *router {
	w.t.Helper()
	w.routers++
	r := &router{namespace: machine(w.t), t: w.t, inside: machine(w.t), public: netip.MustParseAddr(fmt.Sprintf(routerIP, w.routers)), epoch: 1}
	w.attach(r.namespace, fmt.Sprint("router", w.routers), r.public.String())
	require.NoError(w.t, cable(r.namespace, "inside", r.inside, "lan"))
	require.NoError(w.t, r.ip("addr add "+gatewayIP+"/24 dev inside\nlink set inside up"))
	require.NoError(w.t, r.inside.ip("addr add "+phoneIP+"/24 dev lan\nlink set lan up\nroute add default via "+gatewayIP))
	require.NoError(w.t, r.nft(rules))
	require.NoError(w.t, r.set("ipv4/ip_forward", "1"))
	for _, timer := range []string{"udp_timeout", "udp_timeout_stream"} {
		require.NoError(w.t, r.set("netfilter/nf_conntrack_"+timer, fmt.Sprint(udpSeconds)))
	}
	return r
}

// forget drops all bindings, like the restart of a router.
func (r *router) forget() {
	r.t.Helper()
	require.NoError(r.t, r.run("", nil, "conntrack", "-F"))
}

// cut silently drops all packets of existing connections: neither end gets an error.
func (r *router) cut() {
	r.t.Helper()
	r.epoch++
	require.NoError(r.t, r.nft(fmt.Sprintf("flush chain ip home epoch\n"+
		"add rule ip home epoch ct state new ct mark set %[1]d\n"+
		"add rule ip home epoch ct mark != %[1]d drop", r.epoch)))
}

// move gives the phone another address.
func (r *router) move() {
	r.t.Helper()
	require.NoError(r.t, r.inside.ip("addr add "+newIP+"/24 dev lan\naddr del "+phoneIP+"/24 dev lan\n"+
		"addr replace "+newIP+"/24 dev lan\nroute replace default via "+gatewayIP))
}
