package ladder

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// The measures of a picture, in pixels. A character is one of a drawing in plain text.
const (
	charWidth, fontSize = 6.7, 11
	rowHeight, margin   = 18, 14
)

// WriteSVG draws what WriteTo does, as a picture in SVG. The times are left out, so that
// the same messages in the same order give the same picture. Notes that follow each other at
// different participants share a row. It writes nothing for a ladder without events.
// WriteSVG writes to w with no lock held, and returns the error of w.
func (l *Ladder) WriteSVG(w io.Writer) (int64, error) {
	d := l.drawing()
	if d == nil {
		return 0, nil
	}
	n, err := io.WriteString(w, d.svg())
	return int64(n), err
}

// svg draws the rows, and then the columns' lines behind them. The background is white, so
// that the picture can be read on a dark page too.
func (d *drawing) svg() string {
	var rows strings.Builder
	y, height := margin+rowHeight, 0
	noted := make(map[int]bool) // the columns that have a note in the row at y
	for _, e := range d.events {
		isNote := e.from == e.to && !e.heading
		if !isNote || len(noted) == 0 || noted[e.from] {
			y += rowHeight
			clear(noted)
		}
		if isNote {
			noted[e.from] = true
		}
		d.svgRow(&rows, e, y)
		height = y + rowHeight
	}
	var out strings.Builder
	_, _ = fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" `+
		`font-family="ui-monospace, Menlo, Consolas, monospace" font-size="%[3]d">`+"\n"+
		`<rect width="100%%" height="100%%" fill="white"/>`+"\n", d.svgWidth(), height, fontSize)
	for i, name := range d.columns {
		x := d.svgX(i)
		_, _ = fmt.Fprintf(&out, `<text x="%.0f" y="%d" text-anchor="middle" font-weight="bold">%s</text>`+"\n", x, margin+6, html.EscapeString(name))
		_, _ = fmt.Fprintf(&out, `<line x1="%.0f" x2="%.0f" y1="%d" y2="%d" stroke="#8c959f"/>`+"\n", x, x, margin+12, height-8)
	}
	return out.String() + rows.String() + "</svg>\n"
}

// svgRow draws one event around the height y.
func (d *drawing) svgRow(out *strings.Builder, e event, y int) {
	label := html.EscapeString(e.label)
	switch from, to := d.svgX(e.from), d.svgX(e.to); {
	case e.heading:
		_, _ = fmt.Fprintf(out, `<rect x="0" y="%d" width="100%%" height="%d" fill="#eaeef2"/>`+"\n", y-rowHeight/2, rowHeight-2)
		_, _ = fmt.Fprintf(out, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", margin, y+3, label)
	case e.from == e.to:
		_, _ = fmt.Fprintf(out, `<circle cx="%.0f" cy="%d" r="3" fill="#1f6feb"/>`+"\n", from, y)
		_, _ = fmt.Fprintf(out, `<text x="%.0f" y="%d" fill="#1f6feb">%s</text>`+"\n", from+8, y+4, label)
	default:
		tip := to - 8
		if to < from {
			tip = to + 8
		}
		_, _ = fmt.Fprintf(out, `<line x1="%.0f" x2="%.0f" y1="%d" y2="%d" stroke="black"/>`+"\n", from, tip, y, y)
		_, _ = fmt.Fprintf(out, `<polygon points="%.0f,%d %.0f,%d %.0f,%d"/>`+"\n", to, y, tip, y-4, tip, y+4)
		gap := float64(width(e.label)+1) * charWidth
		_, _ = fmt.Fprintf(out, `<rect x="%.0f" y="%d" width="%.0f" height="2" fill="white"/>`+"\n", (from+to-gap)/2, y-1, gap)
		_, _ = fmt.Fprintf(out, `<text x="%.0f" y="%d" text-anchor="middle">%s</text>`+"\n", (from+to)/2, y+4, label)
	}
}

// svgX returns the position of a column's line.
func (d *drawing) svgX(column int) float64 {
	return margin + float64(d.x[column]-timeWidth)*charWidth
}

// svgWidth leaves space for the notes of the last column, and for headings.
func (d *drawing) svgWidth() int {
	last := len(d.columns) - 1
	right := d.svgX(last) + float64(width(d.columns[last]))*charWidth
	for _, e := range d.events {
		switch {
		case e.heading:
			right = max(right, margin+float64(width(e.label))*charWidth)
		case e.from == e.to:
			right = max(right, d.svgX(e.from)+float64(width(e.label)+noteMark)*charWidth)
		}
	}
	return int(right) + margin
}
