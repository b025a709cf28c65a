// Command peers compares this library with others, as servers that sipp calls: bare
// sipgo transactions, sipgo's dialogs, diago without its media, and a loop that copies
// header lines. It is a separate module, so that users of the library do not get their
// dependencies. `make bench-peers` runs it, and docs/performance.md has the results.
//
//	go run . measure -o ../../docs/peers.tsv [-rounds 5] [-seconds 5] [-searches 2]
//	go run . draw -i ../../docs/peers.tsv -dir ../../docs
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: peers measure|draw")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "measure":
		p := &plan{}
		out := flags.String("o", "peers.tsv", "file for the figures")
		flags.IntVar(&p.rounds, "rounds", 5, "how often each server has each load, in turn")
		flags.IntVar(&p.seconds, "seconds", 5, "length of a load")
		flags.IntVar(&p.searches, "searches", 2, "how often each server's limit is looked for")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return p.measure(*out)
	case "draw":
		in := flags.String("i", "peers.tsv", "file with the figures")
		dir := flags.String("dir", ".", "directory for the drawings")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return draw(*in, *dir)
	}
	return fmt.Errorf("unknown command %q", args[0])
}
