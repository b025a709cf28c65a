package child

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// tick is the interval at which a client checks which calls are due.
const tick = 2 * time.Millisecond

// Client runs a client. connect returns a function that makes one whole call; each call
// runs on its own goroutine, at the rate of the flags. Client reports the usage from the
// first call to the end of the last, and fails if a call failed.
func Client(connect func(to string) (call func() error, err error)) error {
	measure := newMeasure()
	to := flag.String("to", "", "whom to call: host:port")
	rate := flag.Int("rate", 100, "calls a second")
	seconds := flag.Int("seconds", 5, "for how long")
	flag.Parse()
	call, err := connect(*to)
	if err != nil {
		return err
	}
	return measure.run(*to, func() error {
		if failed := Pace(*rate, *rate**seconds, call); failed > 0 {
			return fmt.Errorf("%d calls of %d failed", failed, *rate**seconds)
		}
		return nil
	})
}

// Pace makes calls at a rate, each on its own goroutine. It returns the number of failed
// calls after the last has ended, and writes the first error to standard error.
func Pace(rate, calls int, call func() error) (failed int64) {
	var group sync.WaitGroup
	var failures atomic.Int64
	start := time.Now()
	for made := 0; made < calls; {
		due := min(calls, int(time.Since(start).Seconds()*float64(rate)))
		for ; made < due; made++ {
			group.Go(func() {
				if err := call(); err != nil && failures.Add(1) == 1 {
					_, _ = fmt.Fprintln(os.Stderr, "call:", err)
				}
			})
		}
		time.Sleep(tick)
	}
	group.Wait()
	return failures.Load()
}
