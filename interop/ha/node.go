package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"sipdialog.example/dialog"
	store "sipdialog.example/dialog/store/redis"
)

// ringing is the time for which a call rings at a node.
const ringing = 300 * time.Millisecond

// farewell is what a node prints when it ends.
type farewell struct {
	Answered, Restored, Panics uint64
	// Moved counts the calls that another node has got, Left those that were here in the end.
	Moved uint64
	Left  int
	// Goroutines counts those of the library that are left.
	Goroutines int
	// Error is the error of HandOver or Shutdown.
	Error string
}

// beNode is one of the processes: it answers calls until it gets SIGTERM, then hands them
// over, and ends.
func beNode(args []string) error {
	flags := flag.NewFlagSet("node", flag.ContinueOnError)
	name := flags.String("name", "node", "the name of the node")
	address := flags.String("address", "", "the address to bind")
	public := flags.String("public", "", "the address of all nodes")
	socket := flags.String("redis", "", "the socket of the Redis server; empty: no store")
	database := flags.Int("database", 0, "the number of the database")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config := &dialog.StackConfig{
		Transport: &dialog.TransportConfig{
			Protocol: "udp", Address: *address, Port: sipPort,
			PublicAddress: *public, PublicPort: sipPort, // requests go to any node, by the proxy
			ViaAddress: *address, ViaPort: sipPort, // responses to this one
		},
		MaxDialogs: 20000, SessionExpires: 30 * time.Minute, Node: *name,
	}
	var client *redis.Client
	if *socket != "" {
		client = redis.NewClient(&redis.Options{Network: "unix", Addr: *socket, DB: *database, ContextTimeoutEnabled: true})
		config.Store = store.New(client, nil)
	}
	stack, err := dialog.NewStack(config)
	if err != nil {
		return err
	}
	stack.OnIncomingDialog(answer)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	if err := stack.Start(context.Background()); err != nil {
		return err
	}
	fmt.Println("ready")
	sayUnsaved(stack, ended)
	err = leave(stack, client != nil)
	if client != nil {
		_ = client.Close()
	}
	return sayFarewell(stack, err)
}

// unsavedLine is what a node prints for each call that it has answered when the store was
// too slow. It says so at once, since it may be killed.
const unsavedLine = "unsaved"

// sayUnsaved prints that until the node ends.
func sayUnsaved(stack *dialog.Stack, ended <-chan os.Signal) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for said := uint64(0); ; {
		for ; said < stack.Stats().Unsaved; said++ {
			fmt.Println(unsavedLine)
		}
		select {
		case <-tick.C:
		case <-ended:
			return
		}
	}
}

func answer(d dialog.IDialog) {
	time.Sleep(ringing)
	_ = d.Accept(context.Background(), dialog.WithBody(dialog.NewBody("application/sdp", []byte(session))))
}

const session = "v=0\r\no=node 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 17000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"

// noticed is the time in which the front sees that a node takes no more calls: two OPTIONS, one
// each second, that get 503.
const noticed = 3 * time.Second

// leave ends a node: its calls go to others, if there is a store. New calls get 503 until the
// front has noticed, as docs/cluster.md recommends.
func leave(stack *dialog.Stack, stored bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	var err error // without a store the load is over
	if stored {
		err = stack.HandOver(ctx)
		time.Sleep(noticed)
	}
	end, cancelEnd := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancelEnd()
	if failed := stack.Shutdown(end); err == nil {
		err = failed
	}
	return err
}

// sayFarewell prints the counts of a node as one line.
func sayFarewell(stack *dialog.Stack, failed error) error {
	stats := stack.Stats()
	f := farewell{
		Answered: stats.Answered, Restored: stats.Restored, Panics: stats.Panics,
		Moved: stats.Ended[dialog.PartyMoved], Left: stats.Dialogs + stats.Releasing, Goroutines: goroutinesLeft(),
	}
	if failed != nil {
		f.Error = failed.Error()
	}
	line, err := json.Marshal(f)
	fmt.Println(string(line))
	return err
}

// goroutinesLeft counts the goroutines that run the library's code, but for this one.
func goroutinesLeft() int {
	left := 0
	for range 100 {
		dump := make([]byte, 4<<20)
		left = 0
		for _, stack := range strings.Split(string(dump[:runtime.Stack(dump, true)]), "\n\n")[1:] {
			if strings.Contains(stack, "sipdialog.example/dialog.") || strings.Contains(stack, "sipdialog.example/dialog/internal/") {
				left++
			}
		}
		if left == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond) // one that has ended is seen a moment longer
	}
	return left
}
