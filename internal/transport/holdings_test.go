package transport

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// FX6: what a stream holds that was closed counts until its read loop has ended.
func TestStreamsWaitForTheBuffersOfThoseThatWereClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holdings{most: 100}
		closed, open := newHolder(), newHolder()
		require.Empty(t, h.addTo(&closed.in, 60))
		require.True(t, h.wait(&closed.in))
		require.Equal(t, []*stream{closed}, h.addTo(&open.in, 60))
		close(closed.done)
		require.False(t, h.wait(&closed.in), "it must end")

		waited := make(chan bool, 1)
		go func() { waited <- h.wait(&open.in) }()
		synctest.Wait()
		require.Empty(t, waited)
		h.gone(&closed.in)
		require.True(t, <-waited)
		require.Zero(t, h.leaving)
		require.Equal(t, 60, h.held())
	})
}

// A stream that waits ends when it is closed itself.
func TestStreamThatWaitsForBuffersCanBeClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holdings{most: 100}
		closed, other := newHolder(), newHolder()
		h.addTo(&closed.in, 60)
		h.end(&closed.in)
		h.addTo(&other.in, 10)
		waited := make(chan bool, 1)
		go func() { waited <- h.wait(&other.in) }()
		synctest.Wait()
		close(other.done)
		require.False(t, <-waited)
		for _, s := range []*stream{closed, other} {
			h.gone(&s.in)
			h.end(&s.in)
		}
		require.Zero(t, h.leaving)
		require.Zero(t, h.held())
	})
}

func newHolder() *stream {
	s := &stream{done: make(chan struct{})}
	s.in.owner, s.out.owner = s, s
	return s
}
