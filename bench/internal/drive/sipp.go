package drive

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Load is the load by sipp on a server, or by a client on sipp.
type Load struct{ Rate, Seconds int }

// Calls returns the number of calls of the load.
func (l Load) Calls() int { return l.Rate * l.Seconds }

// SocketBuffer is the size of sipp's socket buffers: the same as the servers request.
const SocketBuffer = "4194304"

// Call lets sipp make the calls, and fails if one of them failed.
func Call(address string, l Load, more ...string) error {
	port, err := FreePort()
	if err != nil {
		return err
	}
	args := []string{
		"-sn", "uac", "-i", "127.0.0.1", "-p", strconv.Itoa(port), "-r", strconv.Itoa(l.Rate), "-m", strconv.Itoa(l.Calls()),
		"-nostdin", "-buff_size", SocketBuffer, "-timeout", strconv.Itoa(l.Seconds + 5), "-timeout_error",
	}
	var out bytes.Buffer
	sipp := exec.Command("sipp", append(append(args, more...), address)...)
	sipp.Stdout, sipp.Stderr = io.Discard, &out
	if err := sipp.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return fmt.Errorf("sipp: %w: %s", err, lines[len(lines)-1])
	}
	return nil
}

// Callee is a sipp that answers calls.
type Callee struct {
	Address string
	cmd     *exec.Cmd
}

// Answer starts a Callee, and returns when it listens.
func Answer() (*Callee, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	c := &Callee{Address: fmt.Sprint("127.0.0.1:", port)}
	c.cmd = exec.Command("sipp", "-sn", "uas", "-i", "127.0.0.1", "-p", strconv.Itoa(port), "-nostdin", "-buff_size", SocketBuffer)
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	for range 100 {
		conn, err := net.ListenPacket("udp4", c.Address)
		if err != nil {
			return c, nil // it has the port
		}
		_ = conn.Close()
		time.Sleep(20 * time.Millisecond)
	}
	c.Stop()
	return nil, fmt.Errorf("sipp does not listen on %s", c.Address)
}

// Stop ends the Callee.
func (c *Callee) Stop() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL)
	_ = c.cmd.Wait()
}
