package test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	"sipdialog.example/dialog/internal/siptext"
	"sipdialog.example/dialog/internal/testkit"
)

const tortureDir = "testdata/torture"

// torture is a row of EXPECT.tsv.
type torture struct {
	file       string
	response   bool
	wellFormed bool
	// allowed are the reactions: the final answers to what is in the message.
	allowed [][]int
	closed  bool // the stream that it came by ends
	beyond  int  // octets behind its last message, not to be sent on a stream
}

func tortures(t *testing.T) []torture {
	t.Helper()
	file, err := os.Open(filepath.Join(tortureDir, "EXPECT.tsv"))
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	var list []torture
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "#") {
			list = append(list, readTorture(t, strings.Split(lines.Text(), "\t")))
		}
	}
	require.Len(t, list, 61)
	return list
}

func readTorture(t *testing.T, columns []string) torture {
	t.Helper()
	row := torture{file: columns[0], response: strings.Contains(columns[3], "/"), wellFormed: columns[4] == "ok"}
	for _, answer := range strings.Split(columns[5], "|") {
		switch {
		case answer == "drop", answer == "accept" && row.response:
			row.allowed = append(row.allowed, nil)
		case answer == "accept":
			row.allowed = append(row.allowed, []int{200})
		default:
			status, err := strconv.Atoi(answer)
			require.NoError(t, err)
			row.allowed = append(row.allowed, []int{status})
		}
	}
	return row
}

// onStreams is what differs where the end of a message is known by its
// Content-Length only (RFC 3261 18.3).
var onStreams = map[string]torture{
	"clerr.dat":   {allowed: [][]int{nil}, closed: true}, // waits for the rest of the body
	"baddn.dat":   {allowed: [][]int{nil}, closed: true}, // waits for the end of the headers
	"ncl.dat":     {allowed: [][]int{{400}, nil}, closed: true},
	"mcl01.dat":   {allowed: [][]int{{400}, nil}, closed: true},
	"inv2543.dat": {allowed: [][]int{{400}, nil}, closed: true},
	"dblreq.dat":  {allowed: [][]int{{400, 405}}, beyond: 5}, // its INVITE is a second message, without Contact
}

func (row torture) onStream() torture {
	if different, ok := onStreams[row.file]; ok {
		row.allowed, row.closed, row.beyond = different.allowed, different.closed, different.beyond
	}
	return row
}

func (row torture) read(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(tortureDir, row.file))
	require.NoError(t, err)
	return data
}

// reacted says what is wrong with the final answers to a row's message.
func (row torture) reacted(answers []siptext.Message) error {
	got := finals(answers)
	if !slices.ContainsFunc(row.allowed, func(want []int) bool { return slices.Equal(got, want) }) {
		return fmt.Errorf("answered %v, not one of %v", got, row.allowed)
	}
	return nil
}

// repeated says which text of a well-formed request is not in an answer to it.
func (row torture) repeated(data []byte, answers []siptext.Message, source netip.AddrPort) error {
	if !row.wellFormed || row.response {
		return nil
	}
	request, _, err := siptext.Read(data)
	if err != nil {
		return err
	}
	for _, answer := range answers {
		if answer.Value("call-id") != request.Value("call-id") {
			continue // to the second message
		}
		if err := siptext.Repeats(request, answer, source); err != nil {
			return fmt.Errorf("in the %d: %w", answer.Status(), err)
		}
	}
	return nil
}

// finals are the status codes of final answers in rising order, each once.
func finals(answers []siptext.Message) []int {
	var list []int
	for _, m := range answers {
		if m.Status() >= 200 {
			list = append(list, m.Status())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// check demands that a row passes.
func (row torture) check(t *testing.T, data []byte, answers []siptext.Message, source netip.AddrPort) {
	t.Helper()
	require.NoError(t, row.reacted(answers))
	require.NoError(t, row.repeated(data, answers, source))
}

// documented is the answer to each message that docs/rfc.md says.
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../docs/rfc.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(text), "\n## RFC 4475, RFC 5118\n")
	section, _, _ = strings.Cut(section, "\n## ")
	answers := map[string]string{}
	for _, line := range strings.Split(section, "\n") {
		if columns := strings.Split(line, " | "); len(columns) == 3 {
			for _, name := range strings.Split(columns[1], ", ") {
				answers[name+".dat"] = strings.TrimPrefix(columns[0], "| ")
			}
		}
	}
	return answers
}

// answerOf is an answer as docs/rfc.md has it.
func answerOf(answers []siptext.Message) string {
	if list := finals(answers); len(list) > 0 {
		return strconv.Itoa(list[0])
	}
	return "none"
}

// RFC 4475 and 5118, as datagrams. The stack goes on after each.
func TestTortureMessagesOverUDP(t *testing.T) {
	said := documented(t)
	for _, row := range tortures(t) {
		t.Run(row.file, func(t *testing.T) {
			withTortureStack(t, "udp", func(t *testing.T, s *tortureStack) {
				data := row.read(t)
				s.net.Inject(tester, s.Addr(), data)
				synctest.Wait()
				row.check(t, data, s.responses(), tester)
				require.Equal(t, said[row.file], answerOf(s.responses()), "../docs/rfc.md")
				s.net.Inject(tester, s.Addr(), []byte(strings.Replace(rawOptions(0), "/TCP", "/UDP", 1)))
				synctest.Wait()
				answers := s.responses()
				require.Equal(t, 200, answers[len(answers)-1].Status())
			})
		})
	}
}

// RFC 4475 and 5118, on a stream, which is closed where the end of the message
// is not known.
func TestTortureMessagesOverTCP(t *testing.T) {
	for _, row := range tortures(t) {
		t.Run(row.file, func(t *testing.T) {
			row := row.onStream()
			withTortureStack(t, "tcp", func(t *testing.T, s *tortureStack) {
				data := row.read(t)
				answers, source, closed := s.exchange(data[:len(data)-row.beyond])
				row.check(t, data, answers, source)
				if row.wellFormed || row.closed {
					require.Equal(t, row.closed, closed)
				}
				answers, _, _ = s.exchange([]byte(rawOptions(0)))
				require.Equal(t, []int{200}, finals(answers))
			})
		})
	}
}

// The responses among them, as answers to an INVITE of ours: what names its
// transaction, and the Contact, are replaced.
func TestTortureResponsesToOurInvite(t *testing.T) {
	cases := []struct {
		file      string
		repeated  bool // the INVITE goes out again: nothing has answered it
		confirmed bool
	}{
		{file: "unreason.dat", confirmed: true},
		{file: "noreason.dat"},
		{file: "scalarlg.dat", repeated: true},
		{file: "bigcode.dat", repeated: true},
		{file: "bcast.dat", repeated: true},
	}
	for _, c := range cases {
		t.Run(c.file, func(t *testing.T) {
			withTortureStack(t, "udp", func(t *testing.T, s *tortureStack) {
				d, err := s.NewInvite(context.Background(), uri("bob", tester.Addr().String()), offer(offerSDP))
				require.NoError(t, err)
				invite := s.requests("INVITE")[0]
				s.net.Inject(tester, s.Addr(), answering(invite, torture{file: c.file}.read(t)))
				time.Sleep(time.Second) // T1, and more
				require.Equal(t, c.repeated, len(s.requests("INVITE")) > 1)
				require.Equal(t, c.confirmed, d.State() == dialog.DialogStateEstablished)
				require.Equal(t, c.confirmed, len(s.requests("ACK")) == 1)
			})
		})
	}
}

// answering makes a message an answer to invite, as far as its faults allow.
func answering(invite siptext.Message, data []byte) []byte {
	m, _, _ := siptext.Read(data)
	seen := false
	for i, f := range m.Fields {
		switch {
		case f.Name == "via" && !seen:
			seen = true
			m.Fields[i].Value = invite.Value("via")
		case f.Name == "from", f.Name == "call-id":
			m.Fields[i].Value = invite.Value(f.Name)
		case f.Name == "to":
			m.Fields[i].Value = invite.Value("to") + ";tag=theirs"
		case f.Name == "cseq":
			m.Fields[i].Value = strings.NewReplacer("35 INVITE", invite.Value("cseq"), "OPTIONS", "INVITE").Replace(f.Value)
		case f.Name == "contact":
			m.Fields[i].Value = "<sip:bob@" + tester.String() + ">"
		}
	}
	return m.Bytes()
}

// tortureStack is a stack that takes every call.
type tortureStack struct {
	*dialog.Stack
	t   *testing.T
	net *dialogtest.Network

	mu  sync.Mutex // guards the field below
	out []dialogtest.Packet
}

// tester is where the datagrams come from, whatever their Via says.
var tester = netip.MustParseAddrPort("10.0.0.9:5060")

func withTortureStack(t *testing.T, transport string, test func(t *testing.T, s *tortureStack)) {
	synctest.Test(t, func(t *testing.T) {
		s := &tortureStack{t: t, net: dialogtest.NewNetwork()}
		s.net.Tap(s.tap)
		var err error
		s.Stack, err = dialog.NewStack(&dialog.StackConfig{
			Transport:    &dialog.TransportConfig{Protocol: transport, Address: "10.0.0.1", Port: 5060},
			Network:      s.net.Host("10.0.0.1"),
			Resolver:     testkit.NoNames(),
			AcceptBodies: []string{"application/sdp"},
		})
		require.NoError(t, err)
		s.OnIncomingDialog(func(d dialog.IDialog) { _ = d.Accept(context.Background(), withSDP(answerSDP)) })
		require.NoError(t, s.Start(context.Background()))
		defer s.close()
		test(t, s)
	})
}

func (s *tortureStack) close() {
	// The callers' Contacts lead nowhere.
	if err := s.Shutdown(context.Background()); !testkit.OnlyUnreachable(err, false) {
		s.t.Errorf("shutdown: %v", err)
	}
	s.net.Close()
	synctest.Wait()
}

// tap keeps datagrams of the stack.
func (s *tortureStack) tap(p dialogtest.Packet) {
	if p.Transport != "udp" || p.From == tester {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, p)
}

// sent are the messages in the datagrams written to the tester so far.
func (s *tortureStack) sent() []siptext.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []siptext.Message
	for _, p := range s.out {
		m := readAll(s.t, p.Data)
		require.Len(s.t, m, 1)
		if p.To.Addr() == tester.Addr() {
			list = append(list, m[0])
		} else {
			require.Zero(s.t, m[0].Status(), "a response to %v, which sent nothing", p.To)
		}
	}
	return list
}

func (s *tortureStack) responses() []siptext.Message {
	return slices.DeleteFunc(s.sent(), func(m siptext.Message) bool { return m.Status() == 0 })
}

func (s *tortureStack) requests(method string) []siptext.Message {
	return slices.DeleteFunc(s.sent(), func(m siptext.Message) bool { return m.Method() != method })
}

// exchange writes data on a connection of its own and returns the responses that
// come back in a minute, where it came from, and whether the connection was
// closed by then.
func (s *tortureStack) exchange(data []byte) (answers []siptext.Message, source netip.AddrPort, closed bool) {
	conn, err := s.net.Host(tester.Addr().String()).DialContext(context.Background(), "tcp", s.Addr().String())
	require.NoError(s.t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write(data)
	require.NoError(s.t, err)
	require.NoError(s.t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	text, err := io.ReadAll(conn)
	answers = slices.DeleteFunc(readAll(s.t, text), func(m siptext.Message) bool { return m.Status() == 0 })
	return answers, netip.MustParseAddrPort(conn.LocalAddr().String()), err == nil
}

func readAll(t *testing.T, data []byte) []siptext.Message {
	t.Helper()
	var list []siptext.Message
	for len(data) > 0 {
		m, rest, err := siptext.Read(data)
		require.NoError(t, err, "%q", data)
		list, data = append(list, m), rest
	}
	return list
}
