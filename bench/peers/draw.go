package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// draw makes a drawing of each measured quantity.
func draw(in, dir string) error {
	f, err := readFigures(in)
	if err != nil {
		return err
	}
	loads := func(title, unit string, list ...measured) chart {
		c := chart{title: title, unit: unit}
		for _, rate := range rates {
			for _, m := range list {
				g := group{title: fmt.Sprintf("%d calls/s%s", rate, strings.TrimPrefix(m.title, "INVITE to 200"))}
				if len(list) == 1 {
					g.title = fmt.Sprintf("%d calls/s", rate)
				}
				for _, s := range servers {
					value, ratio := f.of(m, s.binary, rate)
					g.bars = append(g.bars, bar{value, ratio})
				}
				c.groups = append(c.groups, g)
			}
		}
		return c
	}
	limits := chart{title: "Calls a second at which one of a hundred fails, on the processors that sipp runs on too", groups: []group{{}}}
	for _, s := range servers {
		value, ratio := f.limitOf(s.binary)
		limits.groups[0].bars = append(limits.groups[0].bars, bar{value, ratio})
	}
	for name, c := range map[string]chart{
		"peers-cpu.svg":     loads("CPU of the server for a call", "us", measures[0]),
		"peers-memory.svg":  loads("Peak memory of the server", "MiB", measures[1]),
		"peers-latency.svg": loads("From INVITE to 200 (log scale)", "ms", measures[2:]...),
		"peers-limit.svg":   limits,
	} {
		c.log = name == "peers-latency.svg"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(c.svg()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// chart has groups of bars, with one bar for each server.
type chart struct {
	title, unit string
	groups      []group
	log         bool
}

type group struct {
	title string
	bars  []bar
}

type bar struct{ value, ratio spread }

// The measures of a drawing.
const (
	left, right, top = 150, 230, 40
	barHeight, gap   = 18, 26
	plot             = 420
)

var colours = []string{"#1f6feb", "#8c959f", "#bf8700", "#a475f9", "#2da44e"}

// svg draws horizontal bars with their spread, and writes the median and the ratio to bare
// sipgo beside each. The background is white, so that it can be read on a dark page too.
func (c chart) svg() string {
	height := top
	for _, g := range c.groups {
		height += gap + barHeight*len(g.bars)
	}
	height += gap
	var b strings.Builder
	width := left + plot + right
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n"+`<text x="10" y="22" font-size="15">%s</text>`+"\n", html.EscapeString(c.title))
	y := top
	for _, g := range c.groups {
		fmt.Fprintf(&b, `<text x="10" y="%d" font-weight="bold">%s</text>`+"\n", y+14, html.EscapeString(g.title))
		y += gap - 6
		for i, one := range g.bars {
			c.bar(&b, y, i, one)
			y += barHeight
		}
		y += 6
	}
	fmt.Fprintf(&b, `<text x="10" y="%d" fill="#57606a">median, and by bare sipgo in the same round: median (least to most); lines are least to most</text>`+"\n</svg>\n", y+16)
	return b.String()
}

func (c chart) bar(b *strings.Builder, y, i int, one bar) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-8, y+13, html.EscapeString(servers[i].title))
	fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, y+2, c.at(one.value.median), barHeight-5, colours[i])
	fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="black"/>`+"\n", left+c.at(one.value.low), left+c.at(one.value.high), y+8, y+8)
	text := fmt.Sprintf("%s %s", short(one.value.median), c.unit)
	if servers[i].binary != bare {
		text += fmt.Sprintf("; %.2f (%.2f to %.2f)", one.ratio.median, one.ratio.low, one.ratio.high)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", left+plot+10, y+13, html.EscapeString(text))
}

func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// at returns the position of a value on the axis.
func (c chart) at(v float64) float64 {
	most, least := 0.0, math.Inf(1)
	for _, g := range c.groups {
		for _, one := range g.bars {
			most = max(most, one.value.high)
			if one.value.low > 0 {
				least = min(least, one.value.low)
			}
		}
	}
	switch {
	case v <= 0 || most <= 0:
		return 0
	case !c.log:
		return plot * v / most
	}
	least /= 2
	return plot * math.Log(v/least) / math.Log(most/least)
}
