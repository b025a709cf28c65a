package tasks

// Apart runs f on a new goroutine and waits for it. So neither a panic nor
// runtime.Goexit in f ends the caller, which may be a read loop that calls a
// function of the application. It reports whether f returned. If not, panicked
// is the value of the panic, nil after Goexit.
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
