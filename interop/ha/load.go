package main

import (
	"context"
	_ "embed"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed scenarios/caller.xml
var callerScenario string

// load is a sipp that places calls.
type load struct {
	process *process
	folder  string
	calls   int
}

// outcome is what became of the calls.
type outcome struct {
	calls, confirmed, completed, gone, otherwise, refused int
}

// lost is the number of calls that were confirmed, and whose BYE was not answered 200.
func (o outcome) lost() int { return o.confirmed - o.completed }

// startLoad places calls for so long.
func startLoad(folder string, lasts time.Duration) (*load, error) {
	l := &load{folder: folder, calls: int(lasts.Seconds()) * callRate}
	file := filepath.Join(folder, "caller.xml")
	if err := os.WriteFile(file, []byte(callerScenario), 0o600); err != nil {
		return nil, err
	}
	var err error
	l.process, err = start(folder, func(string) {}, "sipp", "-sf", file, "-t", "u1", "-i", callerAddress, "-p", strconv.Itoa(sipPort),
		"-r", strconv.Itoa(callRate), "-m", strconv.Itoa(l.calls), "-l", strconv.Itoa(l.calls), "-nostdin", "-nd",
		"-recv_timeout", "20000", "-trace_stat", "-stf", "stat.csv", "-fd", "1", "-trace_err", "-error_file", "errors.log",
		fmt.Sprintf("%s:%d", frontAddress, sipPort))
	return l, err
}

// wait waits for the end of all calls.
func (l *load) wait(ctx context.Context) (outcome, error) {
	if err := l.process.wait(ctx); err != nil {
		return outcome{}, err
	}
	file, err := os.Open(filepath.Join(l.folder, "stat.csv"))
	if err != nil {
		return outcome{}, fmt.Errorf("sipp: %w%s", err, l.process.said())
	}
	defer func() { _ = file.Close() }()
	table := csv.NewReader(file)
	table.Comma, table.FieldsPerRecord, table.LazyQuotes = ';', -1, true
	rows, err := table.ReadAll()
	if err != nil || len(rows) < 2 {
		return outcome{}, fmt.Errorf("sipp: no statistics: %w%s", err, l.process.said())
	}
	column := func(name string) int {
		for i, title := range rows[0] {
			if title == name && i < len(rows[len(rows)-1]) {
				n, _ := strconv.Atoi(rows[len(rows)-1][i])
				return n
			}
		}
		return -1
	}
	return outcome{
		calls: column("TotalCallCreated"), confirmed: column("GenericCounter1(C)"), completed: column("GenericCounter2(C)"),
		gone: column("GenericCounter3(C)"), otherwise: column("GenericCounter4(C)"), refused: column("GenericCounter5(C)"),
	}, nil
}
