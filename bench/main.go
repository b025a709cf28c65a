// Command bench measures the library as whole processes: the CPU of a server under
// load, the memory of established calls and the cost of their end, the cost of counting
// the waits at locks, the effect of floods on a stack and its calls, and any growth
// during a long run of calls. `make bench` and `make soak` run it; docs/performance.md and
// docs/security.md have the results.
//
//	go run ./bench cpu [-role client] [-pairs 5] [-rate 1500] [-seconds 5]
//	go run ./bench bridge [-rounds 3] [-rate 500] [-seconds 10]
//	go run ./bench calls [-n 10000]
//	go run ./bench locks [-rounds 5]
//	go run ./bench floods [-for 6s] [-only NAME]
//	go run ./bench soak [-minutes 2] [-rate 200]
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: bench cpu|bridge|calls|locks|floods|soak")
	}
	switch args[0] {
	case "cpu":
		return compareCPU(args[1:])
	case "bridge":
		return measureBridge(args[1:])
	case "calls":
		return measureCalls(args[1:])
	case "locks":
		return compareLocks(args[1:])
	case "floods":
		return measureFloods(args[1:])
	case "victim": // a child of floods
		return beVictim()
	case "soak":
		return measureSoak(args[1:])
	case "callee": // a child of calls
		return callee(args[1:])
	case "caller": // a child of calls
		return caller(args[1:])
	default:
		return fmt.Errorf("unknown measurement %q", args[0])
	}
}
