package transport

import (
	"container/list"
	"sync"
)

// holdings bounds the bytes of messages that all streams hold: those that wait for
// their rest, and those that wait to be written. Beyond the bound the stream is closed
// on which nothing has got ahead for longest: a peer that means well needs a moment.
type holdings struct {
	most int // set at construction

	mu   sync.Mutex // guards the fields below, and those of each holding
	used int
	// leaving is the number of bytes that closed streams hold, until their read loops have ended.
	// less, made on demand, is closed when it becomes less.
	leaving int
	less    chan struct{}
	// waiting are the holdings that hold something, the one that has waited longest
	// first.
	waiting list.List
}

// holding counts the bytes that one stream holds in one direction. Its zero value, with an owner, holds
// nothing.
type holding struct {
	owner *stream // set at construction
	bytes int
	place *list.Element // in waiting, nil outside
	ended bool
	left  int // the bytes it held when it ended, until its read loop ends
}

// add says that a holding holds so many bytes more, or fewer, by which it has got
// ahead. It closes the streams that are too much, maybe that one too.
func (h *holdings) add(own *holding, bytes int) {
	for _, s := range h.addTo(own, bytes) {
		s.layer.counters.connCrowded.Add(1)
		s.lose(errCrowded)
	}
}

func (h *holdings) addTo(own *holding, bytes int) (crowded []*stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if own.ended {
		return nil
	}
	h.setLocked(own, own.bytes+bytes)
	if bytes < 0 {
		h.aheadLocked(own)
	}
	for h.used > h.most {
		slowest := h.waiting.Front().Value.(*holding)
		h.endLocked(slowest)
		crowded = append(crowded, slowest.owner)
	}
	return crowded
}

// ahead says that a holding has got ahead, though it holds as much as before.
func (h *holdings) ahead(own *holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.aheadLocked(own)
}

func (h *holdings) aheadLocked(own *holding) {
	if own.place != nil {
		h.waiting.MoveToBack(own.place)
	}
}

func (h *holdings) setLocked(own *holding, bytes int) {
	h.used += bytes - own.bytes
	own.bytes = bytes
	switch {
	case bytes > 0 && own.place == nil:
		own.place = h.waiting.PushBack(own)
	case bytes <= 0 && own.place != nil:
		h.waiting.Remove(own.place)
		own.place = nil
	}
}

// end gives back all bytes of a holding, permanently.
func (h *holdings) end(own *holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked(own)
}

func (h *holdings) endLocked(own *holding) {
	if own.ended {
		return
	}
	if own == &own.owner.in {
		own.left = own.bytes
		h.leaving += own.left
	}
	h.setLocked(own, 0)
	own.ended = true
}

// gone says that the read loop of a holding has ended, and its buffer is free.
func (h *holdings) gone(own *holding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked(own)
	h.leaving -= own.left
	own.left = 0
	if h.less != nil {
		close(h.less)
		h.less = nil
	}
}

// wait is called before a holding that holds something takes more. It waits while those
// that were closed have half of what is allowed: their read loops have to run first, and
// never wait here, since their streams are done. It reports false when this one is.
func (h *holdings) wait(own *holding) bool {
	for {
		less := h.untilLess()
		select {
		case <-own.owner.done:
			return false
		default:
		}
		if less == nil {
			return true
		}
		select {
		case <-less:
		case <-own.owner.done:
		}
	}
}

// untilLess returns nil when no read loop needs to wait.
func (h *holdings) untilLess() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaving <= h.most/2 {
		return nil
	}
	if h.less == nil {
		h.less = make(chan struct{})
	}
	return h.less
}

func (h *holdings) held() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used
}
