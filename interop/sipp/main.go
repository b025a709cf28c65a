// Command sipp tests the library against sipp, a SIP test tool that shares no
// code with it. Each case starts a stack on the loopback interface and a sipp
// with one of the scenarios of this directory. The scenarios check the library's
// messages, header by header, and this program checks the library's callbacks and
// results. It exits 0 if all cases passed.
//
//	go run ./interop/sipp [-run REGEXP] [-parallel N] [-keep]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"time"
)

// caseLimit bounds one case, beside what its timers last.
const caseLimit = 30 * time.Second

func main() {
	only := flag.String("run", "", "run only the cases whose name matches this regular expression")
	parallel := flag.Int("parallel", 4, "cases to run at the same time, beside those that wait for a timer")
	keep := flag.Bool("keep", false, "keep the logs of cases that passed, too")
	flag.Parse()
	if err := run(*only, *parallel, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "interop/sipp:", err)
		os.Exit(1)
	}
}

// result is the result of a case.
type result struct {
	name    string
	elapsed time.Duration
	dir     string // of its logs
	err     error
}

func run(only string, parallel int, keep bool) error {
	if parallel < 1 {
		return errors.New("-parallel must be 1 or more")
	}
	wanted, err := regexp.Compile(only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if _, err := exec.LookPath("sipp"); err != nil {
		return fmt.Errorf("sipp is not installed (Debian: sip-tester): %w", err)
	}
	root, err := os.MkdirTemp("", "interop-sipp-")
	if err != nil {
		return err
	}
	passed, failed := report(start(wanted, parallel, root))
	if failed == 0 && !keep {
		if err := os.RemoveAll(root); err != nil {
			return err
		}
	} else {
		fmt.Println("logs are in", root)
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	switch {
	case failed > 0:
		return fmt.Errorf("%d cases failed", failed)
	case passed == 0:
		return fmt.Errorf("no case matches %q", only)
	}
	return nil
}

// start runs the wanted cases: parallel of them at a time, beside those that wait for a
// timer. It closes the returned channel after the last result.
func start(wanted *regexp.Regexp, parallel int, root string) <-chan result {
	results := make(chan result)
	slots := make(chan struct{}, parallel)
	var running sync.WaitGroup
	go func() {
		defer close(results)
		for _, c := range cases() {
			if !wanted.MatchString(c.name) {
				continue
			}
			slot := slots
			if c.lasts > 0 {
				slot = make(chan struct{}, 1) // its own slot
			}
			slot <- struct{}{}
			running.Add(1)
			go func() {
				defer running.Done()
				results <- runCase(c, filepath.Join(root, c.name))
				<-slot
			}()
		}
		running.Wait()
	}()
	return results
}

func runCase(c testCase, dir string) result {
	began := time.Now()
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = c.run(dir)
	}
	return result{name: c.name, elapsed: time.Since(began), dir: dir, err: err}
}

// report prints the results as they come and counts them.
func report(results <-chan result) (passed, failed int) {
	for r := range results {
		if r.err == nil {
			passed++
			fmt.Printf("ok    %-22s %5.1fs\n", r.name, r.elapsed.Seconds())
			continue
		}
		failed++
		fmt.Printf("FAIL  %-22s %5.1fs\n%v\n", r.name, r.elapsed.Seconds(), r.err)
		fmt.Printf("      every message: %s\n", filepath.Join(r.dir, messageLog))
	}
	return passed, failed
}
