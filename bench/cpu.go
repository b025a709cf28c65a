package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"sipdialog.example/dialog/bench/internal/child"
	"sipdialog.example/dialog/bench/internal/drive"
)

const benchPath = "sipdialog.example/dialog/bench/"

// cpuOptions are the flags of compareCPU.
type cpuOptions struct {
	load    drive.Load
	linger  time.Duration
	trying  bool
	profile string
}

// role is one end of the calls, played by the library and by bare sipgo.
type role struct {
	library, bare string
	measure       func(binary string, o cpuOptions, args ...string) (child.Usage, error)
}

var roles = map[string]role{
	"server": {"server", "barsipgo", serveOnce},
	"client": {"client", "barclient", callOnce},
}

// compareCPU runs the library and bare sipgo in turn, each under the same load of
// sipp's built-in caller or callee, and prints the ratio of their CPU for each
// pair.
func compareCPU(args []string) error {
	flags := flag.NewFlagSet("cpu", flag.ContinueOnError)
	var o cpuOptions
	pairs := flags.Int("pairs", 5, "how many pairs")
	name := flags.String("role", "server", "which end is measured: server or client")
	flags.IntVar(&o.load.Rate, "rate", 1500, "calls a second")
	flags.IntVar(&o.load.Seconds, "seconds", 5, "length of a run")
	flags.DurationVar(&o.linger, "linger", 0, "how long a server goes on after the last call: with 33s its transactions end too")
	flags.BoolVar(&o.trying, "trying", false, "have bare sipgo's server send a 100 too")
	flags.StringVar(&o.profile, "cpuprofile", "", "file for a CPU profile of the library's process")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, ok := roles[*name]
	if !ok {
		return fmt.Errorf("no role %q", *name)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := drive.Build(".", dir, benchPath+r.library, benchPath+r.bare); err != nil {
		return err
	}
	fmt.Printf("cpu: %s, %d calls/s for %d s\n", *name, o.load.Rate, o.load.Seconds)
	return r.compare(dir, *pairs, o)
}

func (r role) compare(dir string, pairs int, o cpuOptions) error {
	var libraryArgs, bareArgs []string
	if o.profile != "" {
		libraryArgs = []string{"-cpuprofile", o.profile}
	}
	if o.trying {
		bareArgs = []string{"-trying"}
	}
	var ratios []float64
	for pair := range pairs {
		ours, err := r.again(filepath.Join(dir, r.library), o, libraryArgs...)
		if err != nil {
			return err
		}
		theirs, err := r.again(filepath.Join(dir, r.bare), o, bareArgs...)
		if err != nil {
			return err
		}
		ratio := float64(ours.CPU()) / float64(theirs.CPU())
		ratios = append(ratios, ratio)
		fmt.Printf("  pair %d: library %s, bare sipgo %s, ratio %.2f\n", pair+1, perCall(ours, o.load), perCall(theirs, o.load), ratio)
	}
	fmt.Printf("  ratio: median %.2f, min %.2f, max %.2f\n", median(ratios), slices.Min(ratios), slices.Max(ratios))
	return nil
}

func perCall(u child.Usage, l drive.Load) string {
	n := time.Duration(l.Calls())
	return fmt.Sprintf("%d us a call (%d user, %d system; peak %d MiB)", (u.CPU() / n).Microseconds(),
		(u.User / n).Microseconds(), (u.System / n).Microseconds(), u.PeakRSS>>10)
}

// tries bounds the attempts of a run. Bare sipgo does not repeat a 2xx, so that sipp waits
// for a lost one for ever.
const tries = 5

// again measures until all calls have succeeded.
func (r role) again(binary string, o cpuOptions, args ...string) (usage child.Usage, err error) {
	for range tries {
		if usage, err = r.measure(binary, o, args...); err == nil {
			return usage, nil
		}
		fmt.Printf("  %s: once more: %v\n", filepath.Base(binary), err)
	}
	return usage, fmt.Errorf("%s: %w", filepath.Base(binary), err)
}

// serveOnce starts a server, lets sipp call it, and returns the resources that the server
// used.
func serveOnce(binary string, o cpuOptions, args ...string) (child.Usage, error) {
	p, err := drive.Start(binary, args...)
	if err != nil {
		return child.Usage{}, err
	}
	return called(p, o)
}

// called has sipp call a server, and returns the resources that the server used.
func called(p *drive.Process, o cpuOptions) (child.Usage, error) {
	loadErr := drive.Call(p.Address, o.load)
	time.Sleep(o.linger)
	usage, err := p.Stop()
	if loadErr != nil {
		return usage, loadErr
	}
	return usage, err
}

// callOnce starts a client that calls sipp, and returns the resources that the client
// used.
func callOnce(binary string, o cpuOptions, args ...string) (child.Usage, error) {
	callee, err := drive.Answer()
	if err != nil {
		return child.Usage{}, err
	}
	defer callee.Stop()
	args = append(args, "-to", callee.Address, "-rate", strconv.Itoa(o.load.Rate), "-seconds", strconv.Itoa(o.load.Seconds))
	p, err := drive.Start(binary, args...)
	if err != nil {
		return child.Usage{}, err
	}
	return p.Wait()
}
