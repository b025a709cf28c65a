package redis_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
	store "sipdialog.example/dialog/store/redis"
)

// refreshed answers each UPDATE, and counts them by call.
type refreshed struct {
	*dialogtest.Endpoint
	calls map[string]int
}

func (r *refreshed) answer(ctx context.Context) {
	for {
		in, err := r.Recv(ctx)
		if err != nil {
			return
		}
		req := in.Request()
		if req == nil || req.Method != "UPDATE" {
			continue
		}
		r.calls[req.CallID().Value()]++
		_ = r.Reply(in, dialogtest.Response{Code: 200, Headers: []string{
			"Contact: <sip:peer@192.0.2.1:5060>", "Session-Expires: 1800;refresher=uac",
		}})
	}
}

// overdue is a call whose refresh is ours, and late.
func overdue(t *testing.T, i int) dialog.Record {
	t.Helper()
	now := time.Now()
	s := &dialog.Snapshot{
		Version: dialog.SnapshotVersion, CallID: fmt.Sprint("call", i), LocalTag: "local", RemoteTag: "remote",
		Established: now.Add(-25 * time.Minute).UnixMilli(), LocalURI: "sip:server@192.0.2.9", RemoteURI: "sip:peer@192.0.2.1",
		SeqTop: 100, RemoteSeq: 1, RemoteSeqKnown: true, RemoteTarget: "sip:peer@192.0.2.1:5060",
		FlowTransport: "UDP", FlowRemote: netip.MustParseAddrPort("192.0.2.1:5060"),
		Session: []byte(session), SessionAgreed: true, Fence: 1,
		TimerInterval: 1800, TimerEnds: now.Add(5 * time.Minute).UnixMilli(), TimerOurs: true, PeerUpdates: true,
	}
	data, err := json.Marshal(s)
	must(t, err)
	return dialog.Record{
		Key: dialog.NewStoreKey(s.CallID, s.LocalTag), Fence: 1, Owner: "gone", Data: data,
		Due: now.Add(-time.Minute), Expires: now.Add(time.Hour),
	}
}

// All processes were down, every session is overdue, and three processes start at once: each
// call is refreshed once, by one of them, and soon.
func TestEverythingIsOverdue(t *testing.T) {
	const calls = 1500
	o := newOutside(store.New(start(t).client(t), nil))
	defer o.close()
	synctest.Test(t, func(t *testing.T) {
		ctx, network := context.Background(), dialogtest.NewNetwork()
		endpoint, err := dialogtest.NewEndpoint(network.Host("192.0.2.1"), "192.0.2.1:5060")
		must(t, err)
		r := &refreshed{endpoint, make(map[string]int)}
		go r.answer(ctx)
		for i := range calls {
			must(t, o.Save(ctx, overdue(t, i)))
		}
		var stacks []*dialog.Stack
		for _, ip := range []string{"192.0.2.11", "192.0.2.12", "192.0.2.13"} {
			stacks = append(stacks, stack(t, network, ip, o))
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		taken := 0
		for i, s := range stacks {
			stats := s.Stats()
			t.Logf("process %d has %d calls", i+1, stats.Dialogs)
			taken += stats.Dialogs
			if stats.Unwritten != 0 {
				t.Errorf("%d calls of process %d are not saved", stats.Unwritten, i+1)
			}
		}
		for call, times := range r.calls {
			if times != 1 {
				t.Errorf("%s was refreshed %d times", call, times)
			}
		}
		if taken != calls || len(r.calls) != calls {
			t.Errorf("%d calls were taken and %d refreshed, of %d", taken, len(r.calls), calls)
		}
		if due, err := o.Due(ctx, time.Now(), "nobody", 10); err != nil || len(due) != 0 {
			t.Errorf("%d calls are due afterwards, %v", len(due), err)
		}
		for _, s := range stacks {
			must(t, s.Shutdown(ctx))
		}
		must(t, endpoint.Close())
		network.Close()
	})
}
