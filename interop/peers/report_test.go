//go:build interop && linux

package peers

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// results are those of this run.
var results report

// report collects what the tests have found out of the peers.
type report struct {
	mu       sync.Mutex // guards the fields below
	versions map[string]string
	absent   map[string]string
	rows     []row
	faults   []fault
}

// row is the result of one feature with one peer.
type row struct {
	peer, feature, over, result string
	// order is the place of the feature in its table.
	order int
}

// fault is what a peer does that an RFC or its own documentation forbids, and the message
// that shows it.
type fault struct{ peer, text, shown string }

const works = "yes"

// meets notes the version of a peer.
func (r *report) meets(peer, version string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.versions == nil {
		r.versions = make(map[string]string)
	}
	r.versions[peer] = version
}

// packaged returns the version of a package of Debian's.
func packaged(name string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil || len(out) == 0 {
		return "of unknown version"
	}
	return string(out)
}

// misses notes that a peer is not there, and says so.
func (r *report) misses(peer, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.absent == nil {
		r.absent = make(map[string]string)
	}
	r.absent[peer] = why
}

func (r *report) add(one row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, one)
}

// shows notes a fault of a peer, once.
func (r *report) shows(f fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.ContainsFunc(r.faults, func(o fault) bool { return o.peer == f.peer && o.text == f.text }) {
		r.faults = append(r.faults, f)
	}
}

// finish writes the page if every test has passed, and says loudly what was not run.
func (r *report) finish(file string, passed bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, peer := range sorted(r.absent) {
		fmt.Fprintf(os.Stderr, "interop/peers: NOT RUN: %s: %s\n", peer, r.absent[peer])
	}
	counts := make(map[string]int)
	for _, one := range r.rows {
		counts[one.peer]++
	}
	for _, peer := range sorted(r.versions) {
		fmt.Printf("interop/peers: %s %s: %d features\n", peer, r.versions[peer], counts[peer])
	}
	if file == "" || !passed || len(r.rows) == 0 {
		return nil
	}
	return os.WriteFile(file, []byte(r.textLocked()), 0o644)
}

const head = `# Interoperation with other programs

` + "`make interop-peers`" + ` wrote this page. It starts each program below on the loopback interface, makes calls
between the program and the library, and fails with the ladder of a call whose result differs
from this page. The programs are packages of Debian and npm. ` + "`interop/peers`" + ` has
the tests. [testing.md](testing.md) lists the tests with sipp and with NAT routers.

*yes* means that the feature works according to the RFCs. Any other result is the behaviour of
the peer; the library does its part, and the call continues.
`

// textLocked returns the page.
func (r *report) textLocked() string {
	var b strings.Builder
	b.WriteString(head)
	for _, peer := range sorted(r.versions) {
		fmt.Fprintf(&b, "\n## %s %s\n\n| feature | over | result |\n|---|---|---|\n", peer, r.versions[peer])
		for _, line := range merged(r.rows, peer) {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", line.feature, line.over, line.result)
		}
		for _, f := range r.faults {
			if f.peer == peer {
				fmt.Fprintf(&b, "\n%s\n\n```\n%s\n```\n", f.text, strings.TrimRight(f.shown, "\n"))
			}
		}
	}
	for _, peer := range sorted(r.absent) {
		fmt.Fprintf(&b, "\n## %s\n\nNot run: %s.\n", peer, r.absent[peer])
	}
	return b.String()
}

// merged returns the rows of a peer in their order, those that differ only in the
// transport as one.
func merged(rows []row, peer string) (lines []row) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(one row) bool { return one.peer != peer })
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.feature, b.feature), cmp.Compare(a.result, b.result),
			cmp.Compare(rank(a.over), rank(b.over)))
	})
	for _, one := range rows {
		if last := len(lines) - 1; last >= 0 && lines[last].feature == one.feature && lines[last].result == one.result {
			lines[last].over += ", " + one.over
			continue
		}
		lines = append(lines, one)
	}
	return lines
}

func rank(over string) int { return slices.Index([]string{"udp", "tcp", "tls", "ws", "wss"}, over) }

func sorted(set map[string]string) (names []string) {
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var (
	addresses = regexp.MustCompile(`127\.\d+\.\d+\.(\d+)(:\d+)?`)
	tokens    = regexp.MustCompile(`(?i)(branch|tag|call-id|rport|received|uuid)([=:] ?)[^;\s>"]+`)
)

// excerpt returns the first line of a message and the headers with these names, without
// what differs from run to run.
func excerpt(data []byte, names ...string) string {
	lines := strings.Split(string(data), "\r\n")
	kept := lines[:1:1]
	for _, line := range lines[1:] {
		name, _, _ := strings.Cut(line, ":")
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			kept = append(kept, line)
		}
	}
	text := addresses.ReplaceAllString(strings.Join(kept, "\n"), "127.0.0.$1")
	return tokens.ReplaceAllString(text, "$1$2…")
}
