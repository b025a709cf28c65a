// Package child has the common code of the benchmark's processes. Servers report the
// address that they listen on and wait to be stopped; clients make their calls. Then both
// report the resources that they used.
package child

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"syscall"
	"time"
)

// Session is the body of every answer.
const Session = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n" +
	"m=audio 4000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n" +
	"a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"

// ReadBuffer is the socket buffer that each server requests: the same size as the
// library's.
const ReadBuffer = 4 << 20

// Usage has the resources that a process used since it was ready.
type Usage struct {
	User, System time.Duration
	// PeakRSS is in KiB, for the whole life of the process.
	PeakRSS int64
}

// CPU returns the sum of user and system time.
func (u Usage) CPU() time.Duration { return u.User + u.System }

// Now returns the usage of this process without its children.
func Now() (Usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return Usage{}, fmt.Errorf("getrusage: %w", err)
	}
	return Usage{User: time.Duration(r.Utime.Nano()), System: time.Duration(r.Stime.Nano()), PeakRSS: int64(r.Maxrss)}, nil
}

// Serve runs a server; start returns the address that it listens on. Serve ends with
// standard input, and then reports the usage since the server was ready.
func Serve(start func() (address string, err error)) error {
	measure := newMeasure()
	flag.Parse()
	address, err := start()
	if err != nil {
		return err
	}
	return measure.run(address, func() error {
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	})
}

// measure reports the usage of a process while it works.
type measure struct{ profile, allocs *string }

func newMeasure() measure {
	return measure{
		profile: flag.String("cpuprofile", "", "file for a CPU profile"),
		allocs:  flag.String("memprofile", "", "file for a profile of allocations"),
	}
}

func (m measure) run(address string, work func() error) error {
	stopProfile, err := profileTo(*m.profile)
	if err != nil {
		return err
	}
	before, err := Now()
	if err != nil {
		return err
	}
	fmt.Println("ready", address)
	workErr := work()
	after, err := Now()
	if err != nil {
		return err
	}
	stopProfile()
	if err := WriteProfile("allocs", *m.allocs); err != nil {
		return err
	}
	fmt.Println("usage", int64(after.User-before.User), int64(after.System-before.System), after.PeakRSS)
	return workErr
}

// WriteProfile writes a profile of that name to a file, unless path is empty.
func WriteProfile(name, path string) error {
	if path == "" {
		return nil
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return pprof.Lookup(name).WriteTo(file, 0)
}

func profileTo(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}, nil
}
