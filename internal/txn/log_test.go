package txn

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"
)

// recordsTo is a slog.Handler that notes each record, and asks the layer
// something, which would not return with one of its locks held.
type recordsTo struct {
	user  *recorder
	layer func() *Layer
}

func (h recordsTo) Enabled(context.Context, slog.Level) bool { return true }
func (h recordsTo) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h recordsTo) WithGroup(string) slog.Handler            { return h }

func (h recordsTo) Handle(_ context.Context, rec slog.Record) error {
	h.layer().Running()
	line := []string{rec.Level.String(), rec.Message}
	rec.Attrs(func(a slog.Attr) bool {
		line = append(line, fmt.Sprintf("%s=%v", a.Key, a.Value))
		return true
	})
	h.user.note("%s", strings.Join(line, "|"))
	return nil
}

// badInput keeps the records of what was refused or dropped.
func badInput(records []string) []string {
	return slices.DeleteFunc(records, func(r string) bool { return !strings.Contains(r, "|bad input|") })
}

func TestBadInputIsLoggedOnce(t *testing.T) {
	var r *rig
	user := &recorder{}
	handler := recordsTo{user, func() *Layer { return r.layer }}
	bubbleWith(t, func(cfg *Config) { cfg.Logger = slog.New(handler) }, func(t *testing.T, rig *rig) {
		r = rig
		line := func(method, callID, reason string) []string {
			return []string{fmt.Sprintf("DEBUG|bad input|peer=%s:5060|method=%s|call_id=%s|reason=%s", peerIP, method, callID, reason)}
		}
		invite := r.text("INVITE", "z9hG4bK-1")
		ack := r.text("ACK", "z9hG4bK-1")
		request := r.request(sip.OPTIONS)
		ok := strings.Join([]string{
			"SIP/2.0 200 OK", "Via: " + request.Via().Value(), "From: " + request.From().Value(), "To: " + request.To().Value(),
			"Call-ID: " + request.CallID().Value(), "CSeq: " + request.CSeq().Value(), "Content-Length: 0",
		}, "\r\n") + "\r\n\r\n"
		for name, c := range map[string]struct {
			text string
			want []string
		}{
			"no To":               {without(invite, "To"), line("INVITE", "call-1", "Missing To")},
			"no Call-ID":          {without(invite, "Call-ID"), line("INVITE", "", "Missing Call-ID")},
			"no CSeq":             {without(invite, "CSeq"), line("INVITE", "call-1", "Missing CSeq")},
			"another CSeq":        {strings.Replace(invite, "1 INVITE", "1 BYE", 1), line("INVITE", "call-1", "CSeq Method Mismatch")},
			"another version":     {strings.Replace(invite, "SIP/2.0\r\n", "SIP/3.0\r\n", 1), line("INVITE", "call-1", "Version Not Supported")},
			"ACK without From":    {without(ack, "From"), line("ACK", "call-1", "Missing From")},
			"response without To": {without(ok, "To"), line("OPTIONS", "call-1", "Missing To")},
			"response, CSeq gone": {without(ok, "CSeq"), line("", "call-1", "Missing CSeq")},
			"response of another": {strings.Replace(ok, "From: ", "Via: SIP/2.0/UDP other\r\nFrom: ", 1), line("OPTIONS", "call-1", "Several Via")},
			"response unasked":    {strings.Replace(ok, "OPTIONS", "BYE", 1), line("BYE", "call-1", "Unmatched Response")},
		} {
			r.wire.send(c.text)
			r.settle()
			require.Equal(t, c.want, badInput(user.take()), name)
		}
		r.wire.send(invite)
		r.settle()
		require.Empty(t, badInput(user.take()))
		r.wire.send(r.text("INVITE", "z9hG4bK-2"))
		r.settle()
		require.Equal(t, line("INVITE", "call-1", "Merged Request"), badInput(user.take()))
		r.wire.send(r.text("INVITE", "z9hG4bK-2")) // its 482 is sent again
		r.settle()
		require.Empty(t, badInput(user.take()))
	})
}
