package main

import (
	"context"
	"time"

	"sipdialog.example/dialog/internal/program"
)

// start starts a program in a folder. line gets each line of its output; it may be nil.
func start(folder string, line func(string), name string, args ...string) (*program.Program, error) {
	return program.Start(program.Command{Path: name, Args: args, Dir: folder, Line: line})
}

// stop asks a program to end, and kills it if it has not within that time.
func stop(p *program.Program, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.Stop(ctx)
}
