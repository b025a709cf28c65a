package program

import "testing"

// EndsWith ends a program with a test. What the program has said is logged if the test has
// failed.
func (p *Program) EndsWith(t testing.TB) {
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("%s:\n%s", p, p.Said())
		}
	})
}
