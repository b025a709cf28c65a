package nat

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespace is the network of one machine. It has no name, so the kernel removes it, with
// its interfaces and rules, when this program ends or crashes. It is the dialog.Network of
// the stacks on that machine.
type namespace struct{ file *os.File }

// newNamespace makes a network that has only a loopback interface.
func newNamespace() (*namespace, error) {
	n := &namespace{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		n.file = file
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("a new network namespace: %w", err)
	}
	return n, n.ip("link set lo up")
}

// onThread runs f on its own thread, which ends with f.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

// inside runs f on a thread of this network. Sockets that f opens stay on this network.
func (n *namespace) inside(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

func (n *namespace) close() { _ = n.file.Close() }

// ListenPacket implements dialog.Network.
func (n *namespace) ListenPacket(ctx context.Context, network, address string) (conn net.PacketConn, err error) {
	err = n.inside(func() error {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen implements dialog.Network.
func (n *namespace) Listen(ctx context.Context, network, address string) (listener net.Listener, err error) {
	err = n.inside(func() error {
		listener, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return listener, err
}

// DialContext implements dialog.Network.
func (n *namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return n.dial(ctx, new(net.Dialer), network, address)
}

// DialFrom connects from an address of this machine.
func (n *namespace) DialFrom(ctx context.Context, network, local, address string) (net.Conn, error) {
	own, err := netip.ParseAddr(local)
	if err != nil {
		return nil, err
	}
	return n.dial(ctx, &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(own, 0))}, network, address)
}

// dial stays on the thread as long as address is not a name.
func (n *namespace) dial(ctx context.Context, d *net.Dialer, network, address string) (conn net.Conn, err error) {
	err = n.inside(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// set writes a sysctl, whose name has slashes.
func (n *namespace) set(name, value string) error {
	return n.inside(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) })
}

// ip runs commands of ip(8), one a line.
func (n *namespace) ip(commands string, files ...*os.File) error {
	return n.run(commands, files, "ip", "-batch", "-")
}

// nft runs commands of nft(8).
func (n *namespace) nft(commands string) error { return n.run(commands, nil, "nft", "-f", "-") }

// run runs a command to its end. It has files as its descriptors from 3 on.
func (n *namespace) run(input string, files []*os.File, name string, args ...string) error {
	return n.inside(func() error {
		cmd := exec.Command(name, args...)
		cmd.Stdin, cmd.ExtraFiles = strings.NewReader(input), files
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, input, out)
		}
		return nil
	})
}

// cable connects two machines by a pair of interfaces.
func cable(a *namespace, aName string, b *namespace, bName string) error {
	return a.ip(fmt.Sprintf("link add name %s type veth peer name %s netns /proc/self/fd/3", aName, bName), b.file)
}
