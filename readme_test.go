package dialog_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// FA8: the programs that README and the guides show are complete: they compile as they stand
// in the page, in a module of their own, and README's caller calls its callee.
func TestProgramsInThePagesRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	shown := programsIn(t, "README.md")
	require.Len(t, shown, 2, "a callee and a caller")
	require.Equal(t, 2, strings.Count(read(t, "README.md"), "```go\n"), "a block that is no program")
	guides, err := filepath.Glob("docs/guide/*.md")
	require.NoError(t, err)
	for _, guide := range guides {
		shown = append(shown, programsIn(t, guide)...)
	}
	require.Greater(t, len(shown), 2)

	// The port of the pages may be taken on the machine of the tests.
	elsewhere := strings.NewReplacer("127.0.0.1", loopback())
	shown[0], shown[1] = elsewhere.Replace(shown[0]), elsewhere.Replace(shown[1])
	binaries := buildModule(t, shown...)
	callee := start(t, binaries[0])
	require.Contains(t, callee.line(), "listening on 127.")
	caller := start(t, binaries[1])
	require.Equal(t, "Established with bob", caller.line())
	caller.ends()
	for _, want := range []string{"call from alice", "Established", "Terminated"} {
		require.Equal(t, want, callee.line())
	}
	require.NoError(t, callee.cmd.Process.Signal(os.Interrupt))
	callee.ends()
}

// programsIn returns the blocks of a page that are whole programs.
func programsIn(t *testing.T, page string) (programs []string) {
	for _, m := range shownGo.FindAllStringSubmatch(read(t, page), -1) {
		if wholeProgram.MatchString(m[1]) {
			programs = append(programs, m[1])
		}
	}
	return programs
}

var wholeProgram = regexp.MustCompile(`(?m)^package main$`)

// buildModule does what the README says: it writes each program into a folder, in a module
// that replaces ours by this tree, and passes go vet and go build. The result is a binary
// for each.
func buildModule(t *testing.T, programs ...string) (binaries []string) {
	dir, tree := t.TempDir(), "."
	tree, err := filepath.Abs(tree)
	require.NoError(t, err)
	// The versions are those of our go.mod, so that nothing is downloaded.
	ours := regexp.MustCompile(`(?m)^module .*$`).ReplaceAllString(read(t, "go.mod"), "module example")
	write(t, dir, "go.mod", ours+"\nrequire "+modulePath+" v0.0.0\n\nreplace "+modulePath+" => "+tree+"\n")
	write(t, dir, "go.sum", read(t, "go.sum"))
	for i, program := range programs {
		write(t, dir, fmt.Sprintf("p%d/main.go", i), program)
		binaries = append(binaries, filepath.Join(dir, "bin", fmt.Sprintf("p%d", i)))
	}
	goTool(t, dir, "vet", "-mod=mod", "./...")
	goTool(t, dir, "build", "-mod=mod", "-o", filepath.Join(dir, "bin")+string(filepath.Separator), "./...")
	return binaries
}

const modulePath = "sipdialog.example/dialog"

func write(t *testing.T, dir, name, text string) {
	file := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

func goTool(t *testing.T, dir string, args ...string) {
	command := exec.Command("go", args...)
	command.Dir = dir
	out, err := command.CombinedOutput()
	require.NoError(t, err, "go %s: %s", strings.Join(args, " "), out)
}

// loopback returns an address that nobody else is likely to use.
func loopback() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1" // the only one there
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// program is one of the README's, running.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *bufio.Scanner
	errors bytes.Buffer
}

func start(t *testing.T, binary string) *program {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	p := &program{t: t, cmd: exec.CommandContext(ctx, binary)}
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.out, p.cmd.Stderr = bufio.NewScanner(out), &p.errors
	require.NoError(t, p.cmd.Start())
	return p
}

// line returns what is printed next.
func (p *program) line() string {
	if !p.out.Scan() {
		_ = p.cmd.Wait()
		require.FailNow(p.t, "the program has ended", "%s", p.errors.String())
	}
	return p.out.Text()
}

// ends waits until the program has succeeded.
func (p *program) ends() {
	require.False(p.t, p.out.Scan(), p.out.Text())
	require.NoError(p.t, p.cmd.Wait(), "%s", p.errors.String())
}
