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

var fencedGo = regexp.MustCompile("(?ms)^## A (\\w+)\n+```go\n(.*?)^```")

// FA8: what the README shows is complete: go vet passes it as it stands, and
// the caller calls the callee.
func TestReadmeProgramsCallEachOther(t *testing.T) {
	if testing.Short() {
		t.Skip("builds two programs")
	}
	programs := map[string]string{}
	for _, m := range fencedGo.FindAllStringSubmatch(read(t, "README.md"), -1) {
		programs[m[1]] = m[2]
		goTool(t, "vet", pasted(t, m[2]))
	}
	require.Len(t, programs, strings.Count(read(t, "README.md"), "```go\n"), "a block under no heading of its own")

	// The port of the pages may be taken on the machine of the tests.
	elsewhere := strings.NewReplacer("127.0.0.1", loopback())
	callee := start(t, built(t, elsewhere.Replace(programs["callee"])))
	require.Contains(t, callee.line(), "listening on 127.")
	caller := start(t, built(t, elsewhere.Replace(programs["caller"])))
	require.Equal(t, "Established", caller.line())
	caller.ends()
	for _, want := range []string{"offered application/sdp", "Established", "Terminated"} {
		require.Equal(t, want, callee.line())
	}
	require.NoError(t, callee.cmd.Process.Signal(os.Interrupt))
	callee.ends()
}

// loopback returns an address that nobody else is likely to use.
func loopback() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1" // the only one there
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// pasted writes a program into a folder of its own.
func pasted(t *testing.T, program string) string {
	file := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(file, []byte(program), 0o600))
	return file
}

func built(t *testing.T, program string) string {
	source := pasted(t, program)
	binary := filepath.Join(filepath.Dir(source), "program")
	goTool(t, "build", "-o", binary, source)
	return binary
}

func goTool(t *testing.T, args ...string) {
	out, err := exec.Command("go", args...).CombinedOutput()
	require.NoError(t, err, "go %s: %s", strings.Join(args, " "), out)
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
