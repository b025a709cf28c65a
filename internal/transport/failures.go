package transport

import (
	"fmt"
	"sync"
	"time"
)

const (
	// failureEntries bounds the destinations that are remembered.
	failureEntries = 1024
	// patience is how many times as long as a dial took to fail it is remembered: who
	// does not answer costs most.
	patience = 3
	// failureTime is how long that is at most, where nothing else bounds a dial.
	failureTime = 30 * time.Second
)

// failures are the destinations that could not be connected to just now: to try again
// for each request would cost each the whole wait, and many at once would be a storm.
// The zero value is ready.
type failures struct {
	mu      sync.Mutex // guards the field below
	entries map[streamKey]dialFailure
}

type dialFailure struct {
	err       error
	at, until time.Time
	// spare lets one more dial through: a dial that is refused at once costs nothing, and may
	// be back the moment after.
	spare bool
}

// get returns why a destination is not to be tried now; nil where it may be.
func (f *failures) get(key streamKey, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	failed, known := f.entries[key]
	if !known {
		return nil
	}
	if !now.Before(failed.until) {
		delete(f.entries, key)
		return nil
	}
	if failed.spare {
		failed.spare = false
		f.entries[key] = failed
		return nil
	}
	return fmt.Errorf("%w (%v ago)", failed.err, now.Sub(failed.at).Round(time.Millisecond))
}

// drop forgets one destination, which has been connected to.
func (f *failures) drop(key streamKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.entries, key)
}

func (f *failures) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entries = nil
}

// put remembers a dial that began then, for pause at least.
func (f *failures) put(key streamKey, err error, began, now time.Time, pause time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	took := now.Sub(began)
	last, known := f.entries[key]
	again := known && now.Before(last.until)
	f.makeRoomLocked()
	lie := max(pause, min(patience*took, failureTime))
	f.entries[key] = dialFailure{err: err, at: now, until: now.Add(lie), spare: !again && took < pause}
}

// makeRoomLocked forgets some other destination where there are too many, whichever: it
// is dialled again.
func (f *failures) makeRoomLocked() {
	if f.entries == nil {
		f.entries = make(map[streamKey]dialFailure)
	}
	for old := range f.entries {
		if len(f.entries) < failureEntries {
			return
		}
		delete(f.entries, old)
	}
}
