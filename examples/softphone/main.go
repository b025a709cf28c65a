// Command softphone is a telephone without sound: it registers, calls, is called, holds and
// transfers, as the lines that are typed say.
//
//	go run ./examples/softphone -as sip:alice@pbx.example -password secret -transport tls
//
//	call sip:bob@pbx.example     answer     reject     hold     resume
//	transfer sip:carol@pbx.example          hangup     ladder   quit
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/ladder"
	"sipdialog.example/dialog/register"
	"sipdialog.example/dialog/sdpbody"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "softphone:", err)
		os.Exit(1)
	}
}

// phone is the telephone. It has one call at a time.
type phone struct {
	stack        *dialog.Stack
	registration *register.Registration
	media        netip.Addr

	speaking sync.Mutex // guards the field below
	out      io.Writer

	mu     sync.Mutex     // guards the fields below
	call   *dialog.Dialog // nil while there is none
	ladder *ladder.Ladder
}

func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	p := &phone{out: out, ladder: ladder.New(us)}
	config, options, err := p.settings(args)
	if err != nil {
		return err
	}
	if p.stack, err = dialog.NewStack(config); err != nil {
		return err
	}
	p.stack.OnCall(p.called)
	p.stack.OnIncomingRefer(p.transferred)
	p.stack.OnFlowLost(func(flow *dialog.Flow, reason error) { p.say("lost", flow, reason) })
	if err := p.stack.Start(context.Background()); err != nil { // not ctx: ctrl-C first takes the registration back
		return err
	}
	if p.registration, err = register.Start(p.stack, options); err != nil {
		return errors.Join(err, p.stack.Shutdown(ctx))
	}
	p.obey(ctx, in)
	end, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(p.registration.Close(end), p.stack.Shutdown(end))
}

// settings reads the command line.
func (p *phone) settings(args []string) (*dialog.StackConfig, register.Options, error) {
	var options register.Options
	flags := flag.NewFlagSet("softphone", flag.ContinueOnError)
	as := flags.String("as", "sip:alice@127.0.0.1", "our address")
	password := flags.String("password", "", "its password; the user is that of the address")
	proxy := flags.String("proxy", "", "outbound proxy, such as pbx.example:5061; else the host of our address")
	transport := flags.String("transport", "udp", "udp, tcp, tls, ws or wss")
	listen := flags.String("listen", "0.0.0.0:0", "address and port to listen on")
	authority := flags.String("ca", "", "file with the certificates to trust; else those of the system")
	flags.DurationVar(&options.Expires, "expires", time.Hour, "how long a registration is to last")
	flags.DurationVar(&options.RetryBase, "retry", 30*time.Second, "how soon to try again after a failure")
	flags.StringVar(&options.Instance, "instance", "", "URN of this device, for registrations of RFC 5626")
	if err := flags.Parse(args); err != nil {
		return nil, options, err
	}
	bind, err := netip.ParseAddrPort(*listen)
	if err != nil {
		return nil, options, fmt.Errorf("-listen: %w", err)
	}
	if err := sip.ParseUri(*as, &options.Record.URI); err != nil {
		return nil, options, fmt.Errorf("-as %s: %w", *as, err)
	}
	via := options.Record.URI.Host
	if *proxy != "" {
		via = *proxy
	}
	var hop sip.Uri
	if err := sip.ParseUri("sip:"+via+";lr;transport="+*transport, &hop); err != nil {
		return nil, options, fmt.Errorf("-proxy %s: %w", via, err)
	}
	trust, err := trusting(*authority)
	if err != nil {
		return nil, options, err
	}
	p.media = bind.Addr()
	options.OnState = func(s register.Status) { p.say(s) }
	return &dialog.StackConfig{
		Transport:     &dialog.TransportConfig{Protocol: listener(*transport), Address: bind.Addr().String(), Port: int(bind.Port())},
		UserAgent:     "softphone/1.0",
		From:          &options.Record,
		OutboundProxy: &hop, TLS: trust, Trace: p.trace,
		Credentials: func(string) (string, string, bool) { return options.Record.URI.User, *password, *password != "" },
	}, options, nil
}

// listener is the protocol to listen on: to a telephone that connects by TLS or WebSocket
// calls come by its own connection, and it needs no certificate.
func listener(transport string) string {
	if transport == "tcp" {
		return "tcp"
	}
	return "udp"
}

// trusting trusts the authorities in a file.
func trusting(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("-ca %s: no certificate", file)
	}
	return config, nil
}

// obey does what the lines say, until quit or the end.
func (p *phone) obey(ctx context.Context, in io.Reader) {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for input := bufio.NewScanner(in); input.Scan(); {
			select {
			case lines <- strings.TrimSpace(input.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case line, more := <-lines:
			if !more || line == "quit" {
				return
			}
			go p.do(ctx, line) // hangup must not wait for call
		case <-ctx.Done():
			return
		}
	}
}

func (p *phone) do(ctx context.Context, line string) {
	command, target, _ := strings.Cut(line, " ")
	commands := map[string]func(context.Context, *dialog.Dialog) error{
		"answer":   func(ctx context.Context, d *dialog.Dialog) error { return d.Accept(ctx) },
		"reject":   func(ctx context.Context, d *dialog.Dialog) error { return d.Reject(ctx, sip.StatusBusyHere, "") },
		"hold":     func(ctx context.Context, d *dialog.Dialog) error { return d.Hold(ctx) },
		"resume":   func(ctx context.Context, d *dialog.Dialog) error { return d.Resume(ctx) },
		"hangup":   func(ctx context.Context, d *dialog.Dialog) error { return d.Hangup(ctx) },
		"transfer": func(ctx context.Context, d *dialog.Dialog) error { return p.transfer(ctx, d, target) },
	}
	f, ok := commands[command]
	var err error
	switch d := p.current(); {
	case command == "":
		return
	case command == "ladder":
		p.draw()
		return
	case command == "call":
		err = p.place(ctx, target)
	case !ok:
		err = errors.New("unknown command")
	case d == nil:
		err = errors.New("no call")
	default:
		err = f(ctx, d)
	}
	if err != nil {
		p.say(command+":", err)
		return
	}
	p.say(command + ": done")
}

// place calls a target, by way of the registrar.
func (p *phone) place(ctx context.Context, target string) error {
	var to sip.Uri
	if err := sip.ParseUri(target, &to); err != nil {
		return err
	}
	session, err := p.session()
	if err != nil {
		return err
	}
	_, err = p.stack.Call(ctx, to, p.registration.InviteOpts(dialog.InviteOpts{
		Body:  session.Offer(),
		Setup: func(d *dialog.Dialog) { p.take(d, session) },
	}))
	return err
}

// called handles an incoming call.
func (p *phone) called(d *dialog.Dialog) {
	session, err := p.session()
	if err != nil || !p.take(d, session) {
		_ = d.Reject(context.Background(), sip.StatusBusyHere, "")
		return
	}
	from := d.Info().Remote.URI
	p.say("called by", from.String())
}

// transferred follows a REFER: the peer asks us to call another target.
func (p *phone) transferred(call dialog.IDialog, to sip.Uri, _ *dialog.ReplacesInfo) {
	session, err := p.session()
	if err != nil {
		p.say("transferred:", err)
		return
	}
	d := call.(*dialog.Dialog)
	next, err := d.FollowRefer(d.Context(), to, p.registration.InviteOpts(dialog.InviteOpts{Body: session.Offer()}))
	if err != nil {
		p.say("transferred:", err)
		return
	}
	p.drop(d)
	p.take(next, session)
	p.say("transferred to", to.String())
}

// transfer has the peer call another target, and hangs up once it has.
func (p *phone) transfer(ctx context.Context, d *dialog.Dialog, target string) error {
	var to sip.Uri
	if err := sip.ParseUri(target, &to); err != nil {
		return err
	}
	refer, err := d.Transfer(ctx, to, dialog.ReferOpts{})
	if err != nil {
		return err
	}
	outcome, err := refer.Wait(ctx)
	if err != nil {
		return err
	}
	if outcome.Status >= 300 {
		return fmt.Errorf("%d %s", outcome.Status, outcome.Reason)
	}
	return d.Bye(ctx, "transferred")
}

// session is what we could hear and say.
func (p *phone) session() (*sdpbody.Session, error) {
	media := p.media
	if media.IsUnspecified() { // of a real telephone: the address of its socket
		media = netip.MustParseAddr("127.0.0.1")
	}
	return sdpbody.New(sdpbody.Local{Addr: media, Streams: []sdpbody.Stream{{Port: 4000, Codecs: []sdpbody.Codec{sdpbody.PCMU(), sdpbody.PCMA()}}}})
}

// take makes a call the present one; false if there is another.
func (p *phone) take(d *dialog.Dialog, session *sdpbody.Session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.call != nil && p.call.State() != dialog.DialogStateTerminated {
		return false
	}
	p.call = d
	d.OnOfferRequest(session.Decide)
	d.OnStateChange(func(state dialog.DialogState) {
		p.say("call:", state)
		if state == dialog.DialogStateTerminated {
			p.drop(d)
		}
	})
	return true
}

func (p *phone) drop(d *dialog.Dialog) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.call == d {
		p.call = nil
	}
}

func (p *phone) current() *dialog.Dialog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.call
}

func (p *phone) say(words ...any) {
	p.speaking.Lock()
	defer p.speaking.Unlock()
	_, _ = fmt.Fprintln(p.out, words...)
}

// us is this telephone in the ladder, whatever its address is.
var us = ladder.Participant{Name: "softphone", Addr: netip.MustParseAddrPort("0.0.0.0:1")}

func (p *phone) trace(e dialog.TraceEvent) {
	from, to := e.Remote, us.Addr
	if e.Outbound {
		from, to = to, from
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ladder.Message(e.Time, from, to, e.Data)
}

// draw draws all messages since it was called last.
func (p *phone) draw() {
	p.mu.Lock()
	drawn := p.ladder
	p.ladder = ladder.New(us)
	p.mu.Unlock()
	p.say(drawn)
}
