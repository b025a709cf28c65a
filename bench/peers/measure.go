package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sipdialog.example/dialog/bench/internal/child"
	"sipdialog.example/dialog/bench/internal/drive"
)

// server is a measured server.
type server struct{ binary, title string }

const bare = "barsipgo"

var servers = []server{
	{"server", "this library"},
	{bare, "bare sipgo"},
	{"sipgodialogs", "sipgo's dialogs"},
	{"diago", "diago, no media"},
	{"copyloop", "copy loop"},
}

// rates are the loads, in calls a second.
var rates = []int{500, 1500}

const module = "sipdialog.example/dialog/"

// plan is the extent of a measurement.
type plan struct {
	rounds, seconds, searches int

	dir     string
	figures figures
}

// measure writes the figures after each round, so that an interrupted run keeps its
// results.
func (p *plan) measure(out string) error {
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p.dir = dir
	if err := drive.Build("../..", dir, module+"bench/server", module+"bench/barsipgo"); err != nil {
		return err
	}
	if err := drive.Build(".", dir, module+"bench/peers/sipgodialogs", module+"bench/peers/diago", module+"bench/peers/copyloop"); err != nil {
		return err
	}
	p.figures.about = about()
	for round := range p.rounds {
		if err := p.round(round); err != nil {
			return err
		}
		if round < p.searches {
			if err := p.search(round); err != nil {
				return err
			}
		}
		if err := p.figures.write(out); err != nil {
			return err
		}
	}
	p.figures.summarise(os.Stdout)
	return nil
}

// rotated returns the servers in an order that changes with each round.
func rotated(round int) []server {
	n := round % len(servers)
	return slices.Concat(servers[n:], servers[:n])
}

// round runs each server once under each load.
func (p *plan) round(round int) error {
	for _, rate := range rates {
		for _, s := range rotated(round) {
			usage, o, err := p.load(s, drive.Load{Rate: rate, Seconds: p.seconds}, true)
			if err != nil {
				return err
			}
			if o.done == 0 {
				return fmt.Errorf("%s: no call of %d succeeded", s.binary, o.failed)
			}
			f := figure{
				round: round, server: s.binary, rate: rate, done: o.done, failed: o.failed,
				cpu: usage.CPU() / time.Duration(o.done), rss: usage.PeakRSS, p50: o.quantile(0.5), p99: o.quantile(0.99), p999: o.quantile(0.999),
			}
			fmt.Println(f)
			p.figures.loads = append(p.figures.loads, f)
		}
	}
	return nil
}

// load runs a server under a load.
func (p *plan) load(s server, l drive.Load, timed bool) (child.Usage, outcome, error) {
	process, err := drive.Start(filepath.Join(p.dir, s.binary))
	if err != nil {
		return child.Usage{}, outcome{}, err
	}
	o, loadErr := callAll(process.Address, l, timed)
	usage, err := process.Stop()
	if loadErr != nil {
		return usage, o, fmt.Errorf("%s: %w", s.binary, loadErr)
	}
	return usage, o, err
}
