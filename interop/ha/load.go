package main

import (
	"context"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sipdialog.example/dialog/internal/program"
)

//go:embed scenarios/caller.xml
var callerScenario string

// load is a sipp that places calls.
type load struct {
	process *program.Program
	folder  string
	calls   int
}

// outcome is what became of the calls.
type outcome struct {
	calls, confirmed, completed, gone, otherwise, refused int
}

// lost is the number of calls that were confirmed, and whose BYE was not answered 200.
func (o outcome) lost() int { return o.confirmed - o.completed }

// startLoad places calls for so long, and each of them talks for so long.
func startLoad(folder string, lasts, talk time.Duration) (*load, error) {
	l := &load{folder: folder, calls: int(lasts.Seconds()) * callRate}
	file := filepath.Join(folder, "caller.xml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(callerScenario, "{{talk}}", strconv.FormatInt(talk.Milliseconds(), 10))), 0o600); err != nil {
		return nil, err
	}
	var err error
	l.process, err = start(folder, nil, "sipp", "-sf", file, "-t", "u1", "-i", callerAddress, "-p", strconv.Itoa(sipPort),
		"-r", strconv.Itoa(callRate), "-m", strconv.Itoa(l.calls), "-l", strconv.Itoa(l.calls), "-nostdin", "-nd",
		"-recv_timeout", "20000", "-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_err", "-error_file", "errors.log",
		fmt.Sprintf("%s:%d", frontAddress, sipPort))
	return l, err
}

// wait waits for the end of all calls.
func (l *load) wait(ctx context.Context) (outcome, error) {
	if err := l.process.Wait(ctx); err != nil {
		return outcome{}, err
	}
	rows, err := l.statistics()
	if err != nil {
		return outcome{}, fmt.Errorf("sipp: %w:\n%s", err, l.process.Said())
	}
	last := len(rows) - 1
	return outcome{
		calls: rows.count(last, "TotalCallCreated"), confirmed: rows.count(last, "GenericCounter1(C)"),
		completed: rows.count(last, "GenericCounter2(C)"), gone: rows.count(last, "GenericCounter3(C)"),
		otherwise: rows.count(last, "GenericCounter4(C)"), refused: rows.count(last, "GenericCounter5(C)"),
	}, nil
}

// table is what sipp has written each second, below a row of titles.
type table [][]string

// count is the number in a column; -1 if there is none.
func (t table) count(row int, name string) int {
	column := slices.Index(t[0], name)
	if column < 0 || column >= len(t[row]) {
		return -1
	}
	n, err := strconv.Atoi(t[row][column])
	if err != nil {
		return -1
	}
	return n
}

func (l *load) statistics() (table, error) {
	file, err := os.Open(filepath.Join(l.folder, "stat.csv"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	reader := csv.NewReader(file)
	reader.Comma, reader.FieldsPerRecord, reader.LazyQuotes = ';', -1, true
	rows, err := reader.ReadAll()
	if err == nil && len(rows) < 2 {
		err = errors.New("no statistics")
	}
	return rows, err
}

// inTime checks that the calls were placed in the time that they should have taken, or
// nearly: sipp writes a row each second.
func (l *load) inTime() error {
	rows, err := l.statistics()
	if err != nil {
		return nil // the load has not ended, for another reason
	}
	const late = 3
	row := min(l.calls/callRate+late, len(rows)-1)
	if placed := rows.count(row, "TotalCallCreated"); placed < l.calls {
		return fmt.Errorf("%w: sipp had placed only %d of %d calls after %d s", errVoid, placed, l.calls, row)
	}
	return nil
}

// sippTime is what begins an error of sipp's, and ends the one before.
var sippTime = regexp.MustCompile(`\d{4}-\d\d-\d\d\t[\d:.]+\t[\d.]+: `)

// errors are the unexpected events of sipp, in brief. The end of a wait of the scenario is not
// an error.
func (l *load) errors() (list []string) {
	text, err := os.ReadFile(filepath.Join(l.folder, "errors.log"))
	if err != nil {
		return nil // none
	}
	for _, e := range sippTime.Split(string(text), -1)[1:] {
		if !strings.Contains(e, "jumping to label") {
			e = strings.Join(strings.Fields(e), " ")
			list = append(list, e[:min(len(e), 250)])
		}
	}
	return list
}
