package program

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func shell(t *testing.T, c Command, script string) *Program {
	t.Helper()
	c.Path, c.Args = "sh", []string{"-c", script}
	p, err := Start(c)
	require.NoError(t, err)
	t.Cleanup(p.Kill)
	return p
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAProgramSaysAndHears(t *testing.T) {
	lines := make(chan string, 10)
	p := shell(t, Command{Env: []string{"NAME=bob"}, Line: func(line string) { lines <- line }}, `read x; echo "$x $NAME"; printf end`)
	require.NoError(t, p.Type("hello"))
	at, err := p.Says(within(t), 0, "hello ")
	require.NoError(t, err)
	at, err = p.Says(within(t), at, "bob")
	require.NoError(t, err)
	_, err = p.Says(within(t), at, "bob")
	require.ErrorContains(t, err, `ended before it said "bob"`)
	require.Equal(t, "hello bob", <-lines)
	require.Equal(t, "hello bob\nend", p.Said())
	require.Equal(t, len(p.Said()), p.Length())
}

func TestAProgramEndsWithWhatItHasStarted(t *testing.T) {
	p := shell(t, Command{}, `sleep 1000 & echo on; wait`)
	_, err := p.Says(within(t), 0, "on")
	require.NoError(t, err)
	p.Kill()
	p.Kill()
	require.NoError(t, p.Wait(within(t)))
}

func TestAProgramThatDoesNotStopIsKilled(t *testing.T) {
	p := shell(t, Command{}, `trap "" TERM; echo on; while :; do read x || sleep 1000; done`)
	_, err := p.Says(within(t), 0, "on")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, p.Stop(ctx), context.Canceled)
	<-p.Done()
}

func TestAProgramThatIsNotThere(t *testing.T) {
	_, err := Start(Command{Path: "/nowhere/program"})
	require.ErrorContains(t, err, "/nowhere/program")
}
