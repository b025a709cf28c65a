package tasks

// Apart runs f on a goroutine of its own and waits for it, so that neither a
// panic nor runtime.Goexit in f ends the caller: f may be a stranger's, called
// from a read loop. It reports whether f returned, else what it panicked with,
// nil for Goexit.
func Apart(f func()) (panicked any, returned bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
		returned = true
	}()
	<-done
	return panicked, returned
}
