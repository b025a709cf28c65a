package bridge

import (
	"testing"
	"testing/synctest"
)

// A gate that is shut has nothing inside, and nothing passes it.
func TestGateWaitsForItsHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		leaves, shut := make(chan struct{}), make(chan struct{})
		go g.pass(func() { <-leaves })
		synctest.Wait()
		for range 2 {
			go func() { g.shut(); shut <- struct{}{} }()
		}
		synctest.Wait()
		select {
		case <-shut:
			t.Fatal("shut while something is inside")
		default:
		}
		if g.pass(func() { t.Error("passed a gate that is being shut") }) {
			t.Error("said so")
		}
		close(leaves)
		<-shut
		<-shut
	})
}
