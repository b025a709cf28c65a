package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sipdialog.example/dialog/bench/internal/drive"
)

// outcome is the result of sipp's calls.
type outcome struct {
	done, failed int
	rate         float64         // calls begun a second
	times        []time.Duration // from INVITE to 200, in rising order
}

// patience is the time that sipp waits for a response. A call whose 200 is lost, and not
// repeated, then fails.
const patience = 3 * time.Second

// callAll lets sipp make the calls. If timed is true, it also reads the response times from
// a log of messages, which has microseconds: sipp's own clock ticks every 4 ms.
func callAll(address string, l drive.Load, timed bool) (outcome, error) {
	dir, err := os.MkdirTemp("", "sipp")
	if err != nil {
		return outcome{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	port, err := drive.FreePort()
	if err != nil {
		return outcome{}, err
	}
	stats, messages := filepath.Join(dir, "stats"), filepath.Join(dir, "messages")
	args := []string{
		"-sn", "uac", "-i", "127.0.0.1", "-p", strconv.Itoa(port), "-r", strconv.Itoa(l.Rate), "-m", strconv.Itoa(l.Calls()), "-l", "100000",
		"-nostdin", "-buff_size", drive.SocketBuffer, "-recv_timeout", strconv.FormatInt(patience.Milliseconds(), 10),
		"-timeout", strconv.Itoa(2*l.Seconds + 30), "-timeout_error", "-trace_stat", "-stf", stats, "-fd", "1",
	}
	if timed {
		args = append(args, "-trace_shortmsg", "-shortmessage_file", messages)
	}
	var complaints bytes.Buffer
	sipp := exec.Command("sipp", append(args, address)...)
	sipp.Dir, sipp.Stdout, sipp.Stderr = dir, io.Discard, &complaints
	var failed *exec.ExitError
	// sipp exits with 1 if a call has failed.
	if err := sipp.Run(); err != nil && (!errors.As(err, &failed) || failed.ExitCode() != 1) {
		return outcome{}, fmt.Errorf("sipp: %w: %s", err, complaints.String())
	}
	o, err := readStats(stats)
	if err == nil && timed {
		o.times, err = readTimes(messages)
	}
	return o, err
}

// The columns of sipp's statistics.
const (
	columnStart   = "StartTime"
	columnNow     = "CurrentTime"
	columnCreated = "TotalCallCreated"
	columnDone    = "SuccessfulCall(C)"
	columnFailed  = "FailedCall(C)"
)

// readStats reads a line for each second. The rate is that of the last line
// before the last call began, or of the last one.
func readStats(path string) (outcome, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return outcome{}, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	names := strings.Split(lines[0], ";")
	var rows []row
	for _, line := range lines[1:] {
		rows = append(rows, row{names, strings.Split(line, ";")})
	}
	if len(rows) == 0 {
		return outcome{}, fmt.Errorf("no line in sipp's statistics")
	}
	last := rows[len(rows)-1]
	o := outcome{done: last.number(columnDone), failed: last.number(columnFailed)}
	for i, r := range rows {
		if i == 0 || r.number(columnCreated) < last.number(columnCreated) || o.rate == 0 {
			if seconds := r.moment(columnNow) - r.moment(columnStart); seconds >= 1 {
				o.rate = float64(r.number(columnCreated)) / seconds
			}
		}
	}
	return o, nil
}

// row is a line of sipp's statistics.
type row struct{ names, values []string }

func (r row) value(name string) string {
	if i := slices.Index(r.names, name); i >= 0 && i < len(r.values) {
		return r.values[i]
	}
	return ""
}

func (r row) number(name string) int {
	n, _ := strconv.Atoi(r.value(name))
	return n
}

// moment returns a time in seconds, the last part of sipp's text.
func (r row) moment(name string) float64 {
	_, text, _ := strings.Cut(r.value(name), "\t")
	_, text, _ = strings.Cut(text, "\t")
	seconds, _ := strconv.ParseFloat(text, 64)
	return seconds
}

// readTimes reads the time from each INVITE to its 200.
func readTimes(path string) ([]time.Duration, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	sent := map[string]float64{}
	var times []time.Duration
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		// date, time, seconds, S or R, Call-ID, CSeq, start line
		f := strings.Split(lines.Text(), "\t")
		if len(f) < 7 || !strings.HasSuffix(f[5], " INVITE") {
			continue
		}
		at, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			return nil, err
		}
		began, waits := sent[f[4]]
		switch {
		case f[3] == "S" && !waits:
			sent[f[4]] = at
		case f[3] == "R" && waits && strings.HasPrefix(f[6], "SIP/2.0 200"):
			times = append(times, time.Duration((at-began)*float64(time.Second)))
			delete(sent, f[4])
		}
	}
	slices.Sort(times)
	return times, lines.Err()
}

// quantile returns the time within which a part of the calls was answered.
func (o outcome) quantile(part float64) time.Duration {
	if len(o.times) == 0 {
		return 0
	}
	return o.times[min(int(part*float64(len(o.times))), len(o.times)-1)]
}
