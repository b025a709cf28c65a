package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// The times at which a soak is measured. Transactions linger for 32 s, so the load has
// settled after a minute.
const (
	settled  = time.Minute
	window   = 15 * time.Second
	glances  = 10
	everyNow = time.Minute
)

// watched has the levels of the process in the first minute after it had settled, and in
// the last.
type watched struct {
	done          sync.WaitGroup
	before, after level
}

// level is the median of some samples.
type level struct {
	heap        uint64
	goroutines  int
	descriptors int
}

func (l level) String() string {
	return fmt.Sprintf("%.1f MiB of heap, %d goroutines, %d descriptors", float64(l.heap)/(1<<20), l.goroutines, l.descriptors)
}

// watch takes the samples while the load runs.
func watch(s *soak, whole time.Duration) *watched {
	w := &watched{}
	start := time.Now()
	w.done.Go(func() {
		time.Sleep(settled)
		w.before = takeLevel()
		fmt.Printf("  after %v: %v\n", settled, w.before)
		for next := settled + everyNow; next < whole-window; next += everyNow {
			time.Sleep(time.Until(start.Add(next)))
			fmt.Printf("  after %v: %v, %d calls\n", next, takeLevel(), s.calls.Load())
		}
		time.Sleep(time.Until(start.Add(whole - window)))
		w.after = takeLevel()
		fmt.Printf("  after %v: %v\n", whole, w.after)
	})
	return w
}

// takeLevel takes samples for the length of a window.
func takeLevel() level {
	var heaps []uint64
	var goroutines, descriptors []int
	for range glances {
		now := holding()
		heaps, goroutines, descriptors = append(heaps, now.heap), append(goroutines, now.goroutines), append(descriptors, openDescriptors())
		time.Sleep(window / glances)
	}
	return level{middle(heaps), middle(goroutines), middle(descriptors)}
}

func middle[T uint64 | int](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

// openDescriptors returns the number of open descriptors; 0 if the system does not report
// it.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// The permitted growth: calls come and go, and their number at a moment is random.
const (
	moreHeap       = 1.15
	moreGoroutines = 1.25
	spareRoutines  = 50
)

// verdict waits for the last sample and compares.
func (w *watched) verdict() error {
	w.done.Wait()
	var errs []error
	if float64(w.after.heap) > moreHeap*float64(w.before.heap) {
		errs = append(errs, errors.New("the heap has grown"))
	}
	if float64(w.after.goroutines) > moreGoroutines*float64(w.before.goroutines)+spareRoutines {
		errs = append(errs, errors.New("there are more goroutines"))
	}
	if w.after.descriptors > w.before.descriptors {
		errs = append(errs, errors.New("there are more descriptors"))
	}
	return errors.Join(errs...)
}
