package ladder

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	timeFormat = "%9.3f  " // seconds, left of the first column
	timeWidth  = 11
	arrowEnds  = 6 // "--", a blank on both sides of the label, "->"
	noteMark   = 3 // "* " before a note and a blank behind it
)

// drawing lays events out on columns.
type drawing struct {
	columns []string
	events  []event
	x       []int // the position of each column's line
}

func newDrawing(columns []string, events []event) *drawing {
	d := &drawing{columns: columns, events: events, x: make([]int, len(columns))}
	d.x[0] = timeWidth + width(columns[0])/2
	for i := 1; i < len(columns); i++ {
		d.x[i] = d.x[i-1] + d.nameGap(i)
	}
	// Neighbours first: then events that span several columns mostly fit.
	for span := 1; span < len(columns); span++ {
		for _, e := range events {
			if !e.heading {
				d.widen(e, span)
			}
		}
	}
	return d
}

// nameGap returns the distance of column i from the one before at which their names
// do not touch.
func (d *drawing) nameGap(i int) int {
	return (width(d.columns[i-1])+1)/2 + width(d.columns[i])/2 + 2
}

// widen moves columns to the right until an event that spans span columns fits. A note
// needs the space up to the next column.
func (d *drawing) widen(e event, span int) {
	left, right, need := min(e.from, e.to), max(e.from, e.to), width(e.label)+arrowEnds+1
	if left == right {
		right, need = left+1, width(e.label)+noteMark
	}
	if right-left != span || right == len(d.x) {
		return
	}
	for missing := need - (d.x[right] - d.x[left]); right < len(d.x) && missing > 0; right++ {
		d.x[right] += missing
	}
}

func (d *drawing) text() string {
	var out strings.Builder
	d.line(&out, d.header())
	d.line(&out, d.rails())
	start := d.events[0].at
	for _, e := range d.events {
		row := d.rails()
		put(&row, 0, fmt.Sprintf(timeFormat, sinceRounded(start, e.at)))
		switch {
		case e.heading:
			put(&row, timeWidth, "== "+e.label+" ==")
		case e.from == e.to:
			put(&row, d.x[e.from], "* "+e.label)
		default:
			d.arrow(&row, e)
		}
		d.line(&out, row)
	}
	return out.String()
}

// header returns the line of names, each centred above its column.
func (d *drawing) header() []rune {
	var row []rune
	for i, name := range d.columns {
		put(&row, d.x[i]-width(name)/2, name)
	}
	return row
}

// rails returns a line without events.
func (d *drawing) rails() []rune {
	var row []rune
	for _, x := range d.x {
		put(&row, x, "|")
	}
	return row
}

// arrow draws a message with its label in the middle. It crosses the lines of
// the columns between.
func (d *drawing) arrow(row *[]rune, e event) {
	left, right := d.x[min(e.from, e.to)]+1, d.x[max(e.from, e.to)]
	put(row, left, strings.Repeat("-", right-left))
	put(row, left+(right-left-width(e.label)-2)/2, " "+e.label+" ")
	if e.from < e.to {
		put(row, right-1, ">")
	} else {
		put(row, left, "<")
	}
}

func (d *drawing) line(out *strings.Builder, row []rune) {
	out.WriteString(strings.TrimRight(string(row), " "))
	out.WriteByte('\n')
}

// put writes text over a row from position x on.
func put(row *[]rune, x int, text string) {
	for i, r := range []rune(text) {
		for len(*row) <= x+i {
			*row = append(*row, ' ')
		}
		(*row)[x+i] = r
	}
}

func width(text string) int { return utf8.RuneCountInString(text) }

func sinceRounded(start, t time.Time) float64 {
	return t.Sub(start).Round(time.Millisecond).Seconds()
}
