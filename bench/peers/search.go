package main

import (
	"fmt"

	"sipdialog.example/dialog/bench/internal/drive"
)

// The search for the rate at which one call of a hundred fails.
const (
	firstRate     = 2000
	searchSeconds = 3
	tolerated     = 0.01
	// saturated is the part of a rate that sipp must reach; below it sipp is the limit.
	saturated = 0.9
	precision = 1.1
)

// limit is the highest rate that was reached with few failures, and whether sipp could
// not reach a higher one.
type limit struct {
	round  int
	server string
	rate   float64
	sipp   bool
}

// search finds each server's limit.
func (p *plan) search(round int) error {
	for _, s := range rotated(round) {
		l, err := p.limitOf(s)
		if err != nil {
			return err
		}
		l.round = round
		fmt.Printf("%-14s %5.0f calls/s at most%s\n", s.binary, l.rate, map[bool]string{true: ", by sipp"}[l.sipp])
		p.figures.limits = append(p.figures.limits, l)
	}
	return nil
}

// limitOf doubles the rate until too many calls fail, and then halves the distance.
func (p *plan) limitOf(s server) (limit, error) {
	best := limit{server: s.binary}
	low, high, rate := 0.0, 0.0, float64(firstRate)
	for high == 0 || high/max(low, 1) > precision {
		_, o, err := p.load(s, drive.Load{Rate: int(rate), Seconds: searchSeconds}, false)
		if err != nil {
			return best, err
		}
		switch good := float64(o.failed) <= tolerated*float64(o.done+o.failed); {
		case good && o.rate < saturated*rate:
			best.rate, best.sipp = max(best.rate, o.rate), true
			return best, nil
		case good:
			low, best.rate = rate, max(best.rate, o.rate)
		default:
			high = rate
		}
		if high == 0 {
			rate *= 2
		} else {
			rate = (low + high) / 2
		}
		if rate < 50 {
			break
		}
	}
	return best, nil
}
