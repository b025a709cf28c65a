package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"sipdialog.example/dialog/bench/internal/child"
	"sipdialog.example/dialog/bench/internal/drive"
)

// measureBridge runs a bridge between two sipps, and in turn the two calls that it consists
// of by themselves: one that a server takes, and one that a client makes. It prints the
// CPU of a bridged call beside that of both.
func measureBridge(args []string) error {
	flags := flag.NewFlagSet("bridge", flag.ContinueOnError)
	var o cpuOptions
	rounds := flags.Int("rounds", 3, "how many rounds")
	flags.IntVar(&o.load.Rate, "rate", 500, "calls a second")
	flags.IntVar(&o.load.Seconds, "seconds", 10, "length of a run")
	flags.StringVar(&o.profile, "cpuprofile", "", "file for a CPU profile of the bridge")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := drive.Build(".", dir, benchPath+"middle", benchPath+"server", benchPath+"client"); err != nil {
		return err
	}
	fmt.Printf("bridge: %d calls/s for %d s\n", o.load.Rate, o.load.Seconds)
	var ratios []float64
	for range *rounds {
		ratio, err := bridgeRound(dir, o)
		if err != nil {
			return err
		}
		ratios = append(ratios, ratio)
	}
	fmt.Printf("  ratio of a bridged call to two plain ones: median %.2f\n", median(ratios))
	return nil
}

func bridgeRound(dir string, o cpuOptions) (ratio float64, err error) {
	var profile []string
	if o.profile != "" {
		profile = []string{"-cpuprofile", o.profile}
	}
	joined, err := role{measure: bridgeOnce}.again(filepath.Join(dir, "middle"), o, profile...)
	if err != nil {
		return 0, err
	}
	taken, err := roles["server"].again(filepath.Join(dir, "server"), o)
	if err != nil {
		return 0, err
	}
	made, err := roles["client"].again(filepath.Join(dir, "client"), o)
	if err != nil {
		return 0, err
	}
	cores := joined.CPU().Seconds() / float64(o.load.Seconds)
	ratio = float64(joined.CPU()) / float64(taken.CPU()+made.CPU())
	fmt.Printf("  bridged: %s, %.2f cores; taken: %s; made: %s; ratio %.2f\n", perCall(joined, o.load), cores, perCall(taken, o.load), perCall(made, o.load), ratio)
	return ratio, nil
}

// bridgeOnce starts a callee, the bridge and a caller, and returns the resources that the
// bridge used.
func bridgeOnce(binary string, o cpuOptions, args ...string) (child.Usage, error) {
	callee, err := drive.Answer()
	if err != nil {
		return child.Usage{}, err
	}
	defer callee.Stop()
	p, err := drive.Start(binary, append(args, "-to", callee.Address)...)
	if err != nil {
		return child.Usage{}, err
	}
	return called(p, o)
}
