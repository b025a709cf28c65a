package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// figure has the resources that a server used under a load.
type figure struct {
	round          int
	server         string
	rate           int
	done, failed   int
	cpu            time.Duration // of the server, by the calls that succeeded
	rss            int64         // the peak, in KiB
	p50, p99, p999 time.Duration // from INVITE to 200, measured by sipp
}

func (f figure) String() string {
	return fmt.Sprintf("%-14s %5d calls/s: %4d us a call, %3d MiB, INVITE to 200 in %v, %v, %v, %d failed",
		f.server, f.rate, f.cpu.Microseconds(), f.rss>>10, f.p50, f.p99, f.p999, f.failed)
}

// figures has all results.
type figures struct {
	about  []string // of the machine and the versions
	loads  []figure
	limits []limit
}

const (
	loadColumns  = "load\tround\tserver\trate\tdone\tfailed\tcpu_us\trss_kib\tp50_us\tp99_us\tp999_us"
	limitColumns = "limit\tround\tserver\trate\tby_sipp"
)

func about() []string {
	list := []string{fmt.Sprintf("%s, %s/%s, %d processors, which sipp runs on too; %s", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "github.com/emiago/") {
				list = append(list, m.Path+" "+m.Version)
			}
		}
	}
	return list
}

func (f *figures) write(path string) error {
	var b strings.Builder
	for _, line := range f.about {
		b.WriteString("# " + line + "\n")
	}
	b.WriteString("# " + loadColumns + "\n# " + limitColumns + "\n")
	for _, l := range f.loads {
		fmt.Fprintf(&b, "load\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", l.round, l.server, l.rate, l.done, l.failed,
			l.cpu.Microseconds(), l.rss, l.p50.Microseconds(), l.p99.Microseconds(), l.p999.Microseconds())
	}
	for _, l := range f.limits {
		fmt.Fprintf(&b, "limit\t%d\t%s\t%.0f\t%t\n", l.round, l.server, l.rate, l.sipp)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func readFigures(path string) (figures, error) {
	file, err := os.Open(path)
	if err != nil {
		return figures{}, err
	}
	defer func() { _ = file.Close() }()
	var f figures
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if err := f.read(lines.Text()); err != nil {
			return f, fmt.Errorf("%s: %q: %w", path, lines.Text(), err)
		}
	}
	return f, nil
}

func (f *figures) read(line string) error {
	kind, rest, _ := strings.Cut(line, "\t")
	switch {
	case strings.HasPrefix(line, "#"):
		f.about = append(f.about, strings.TrimPrefix(line, "# "))
	case kind == "load":
		var l figure
		var cpu, p50, p99, p999 int64
		if _, err := fmt.Sscan(rest, &l.round, &l.server, &l.rate, &l.done, &l.failed, &cpu, &l.rss, &p50, &p99, &p999); err != nil {
			return err
		}
		l.cpu, l.p50, l.p99, l.p999 = micro(cpu), micro(p50), micro(p99), micro(p999)
		f.loads = append(f.loads, l)
	case kind == "limit":
		var l limit
		if _, err := fmt.Sscan(rest, &l.round, &l.server, &l.rate, &l.sipp); err != nil {
			return err
		}
		f.limits = append(f.limits, l)
	}
	return nil
}

func micro(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// measured is one measured quantity.
type measured struct {
	title, unit string
	of          func(figure) float64
}

var measures = []measured{
	{"CPU a call", "us", func(f figure) float64 { return float64(f.cpu.Microseconds()) }},
	{"peak memory", "MiB", func(f figure) float64 { return float64(f.rss) / 1024 }},
	{"INVITE to 200, p50", "ms", func(f figure) float64 { return f.p50.Seconds() * 1000 }},
	{"INVITE to 200, p99", "ms", func(f figure) float64 { return f.p99.Seconds() * 1000 }},
	{"INVITE to 200, p99.9", "ms", func(f figure) float64 { return f.p999.Seconds() * 1000 }},
}

// spread is a median with the smallest and the largest value. A ratio compares with bare
// sipgo in the same round.
type spread struct{ median, low, high float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	slices.Sort(values)
	return spread{values[len(values)/2], values[0], values[len(values)-1]}
}

// of returns a quantity of a server at a rate, and its ratios.
func (f *figures) of(m measured, server string, rate int) (value, ratio spread) {
	var values, ratios []float64
	for _, l := range f.loads {
		if l.server != server || l.rate != rate {
			continue
		}
		values = append(values, m.of(l))
		for _, other := range f.loads {
			if other.server == bare && other.rate == rate && other.round == l.round && m.of(other) > 0 {
				ratios = append(ratios, m.of(l)/m.of(other))
			}
		}
	}
	return spreadOf(values), spreadOf(ratios)
}

// limitOf returns the limit of a server, and its ratios.
func (f *figures) limitOf(server string) (value, ratio spread) {
	var values, ratios []float64
	for _, l := range f.limits {
		if l.server != server {
			continue
		}
		values = append(values, l.rate)
		for _, other := range f.limits {
			if other.server == bare && other.round == l.round && other.rate > 0 {
				ratios = append(ratios, l.rate/other.rate)
			}
		}
	}
	return spreadOf(values), spreadOf(ratios)
}

// summarise writes the table of docs/performance.md.
func (f *figures) summarise(w io.Writer) {
	_, _ = fmt.Fprint(w, "\n| |")
	for _, s := range servers {
		_, _ = fmt.Fprintf(w, " %s |", s.title)
	}
	_, _ = fmt.Fprint(w, "\n|---|"+strings.Repeat("---|", len(servers))+"\n")
	for _, rate := range rates {
		for _, m := range measures {
			_, _ = fmt.Fprintf(w, "| %s at %d/s, %s |", m.title, rate, m.unit)
			for _, s := range servers {
				value, ratio := f.of(m, s.binary, rate)
				_, _ = fmt.Fprintf(w, " %.3g; %.2f (%.2f to %.2f) |", value.median, ratio.median, ratio.low, ratio.high)
			}
			_, _ = fmt.Fprintln(w)
		}
	}
	_, _ = fmt.Fprint(w, "| calls/s at 1 % failure |")
	for _, s := range servers {
		value, ratio := f.limitOf(s.binary)
		_, _ = fmt.Fprintf(w, " %.0f; %.2f (%.2f to %.2f) |", value.median, ratio.median, ratio.low, ratio.high)
	}
	_, _ = fmt.Fprintln(w)
}
