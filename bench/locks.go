package main

import (
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed plainlock.go.txt
var plainLock []byte

const lockstatSource = "internal/lockstat/lockstat.go"

// compareLocks builds the benchmarks of the root package twice, unchanged and with plain
// locks, and runs them in turn. It must run in the module's directory.
func compareLocks(args []string) error {
	flags := flag.NewFlagSet("locks", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "how often each")
	pattern := flags.String("bench", "Call/memory|DialogByKey/hot/dialogs=1000$|State/dialogs=1000$", "which benchmarks")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	overlay, err := writeOverlay(dir)
	if err != nil {
		return err
	}
	counting, plain := filepath.Join(dir, "counting"), filepath.Join(dir, "plain")
	if err := passOn("go", "test", "-c", "-o", counting, "."); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	if err := passOn("go", "test", "-c", "-overlay", overlay, "-o", plain, "."); err != nil {
		return fmt.Errorf("build with plain locks: %w", err)
	}
	with, without := map[string][]float64{}, map[string][]float64{}
	for range *rounds {
		if err := runBenchmarks(counting, *pattern, with); err != nil {
			return err
		}
		if err := runBenchmarks(plain, *pattern, without); err != nil {
			return err
		}
	}
	fmt.Printf("locks: time with counting locks, by that with sync.RWMutex; medians of %d rounds in turn\n", *rounds)
	for name, times := range with {
		fmt.Printf("  %s: %.3f (%.0f ns, %.0f ns)\n", name, median(times)/median(without[name]), median(times), median(without[name]))
	}
	return nil
}

func writeOverlay(dir string) (string, error) {
	replaced, err := filepath.Abs(lockstatSource)
	if err != nil {
		return "", err
	}
	plain := filepath.Join(dir, "lockstat.go")
	if err := os.WriteFile(plain, plainLock, 0o644); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {replaced: plain}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o644)
}

var benchmarkLine = regexp.MustCompile(`(?m)^(Benchmark\S+)\s+\d+\s+([0-9.]+) ns/op`)

// runBenchmarks adds the times of one run to times.
func runBenchmarks(binary, pattern string, times map[string][]float64) error {
	cmd := exec.Command(binary, "-test.run", "^$", "-test.bench", pattern, "-test.benchtime", "1s")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", binary, err, out)
	}
	for _, match := range benchmarkLine.FindAllStringSubmatch(string(out), -1) {
		ns, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(match[1], "Benchmark")
		times[name] = append(times[name], ns)
	}
	return nil
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
