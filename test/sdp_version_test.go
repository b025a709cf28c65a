package test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/dialogtest"
)

// FD24, RFC 3264 8, RFC 6337 5.2.5: the version in our o= line never goes back, and
// goes up with each change, whoever wrote the SDP.

// said are the SDPs that the stack has sent, in order, a repetition once.
func (w *world) said(ip string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, m := range w.log {
		body := m.body()
		if m.from.Addr().String() == ip && strings.Contains(body, "v=0") && (len(list) == 0 || list[len(list)-1] != body) {
			list = append(list, body)
		}
	}
	return list
}

// versionOf is the version in an SDP's o= line.
func versionOf(t *testing.T, body string) int {
	t.Helper()
	found := regexp.MustCompile(`o=\S+ \S+ (\d+) IN`).FindStringSubmatch(body)
	require.NotNil(t, found, body)
	version, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	return version
}

// versionsRise checks all that the stack has said, and returns the versions.
func (w *world) versionsRise(ip string) []int {
	w.t.Helper()
	var versions []int
	for i, body := range w.said(ip) {
		versions = append(versions, versionOf(w.t, body))
		if i > 0 {
			require.Greater(w.t, versions[i], versions[i-1], "%s\nafter\n%s", body, w.said(ip)[i-1])
		}
	}
	return versions
}

// sdpBody is a body of the application's.
func sdpBody(text string) dialog.Body { return dialog.NewBody("application/sdp", []byte(text)) }

// The application goes on counting where it was when Hold and Resume have counted
// behind it.
func TestSDPOfTheApplicationDoesNotGoBehindHold(t *testing.T) {
	other := strings.Replace(answerSDP, "5000", "5002", 1)
	for name, say := range map[string]func(l *peerCall, body string){
		"re-INVITE": func(l *peerCall, body string) {
			l.says(func(ctx context.Context) error { return l.d.ReInvite(ctx, dialog.InviteOpts{Body: sdpBody(body)}) }, offerSDP)
		},
		"UPDATE": func(l *peerCall, body string) {
			result := began(func() error { _, err := l.d.Update(context.Background(), sdpBody(body)); return err })
			l.reply(l.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
			require.NoError(l.t, <-result)
		},
		"answer to a re-INVITE": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			require.Equal(l.t, 200, l.offers("INVITE", offerSDP).StatusCode)
		},
		"offer that the peer asks for": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			l.ask("INVITE")
			require.Equal(l.t, 200, l.peer.final("INVITE").StatusCode)
			l.acknowledge(l.seq, withBody(offerSDP))
			synctest.Wait()
		},
		"answer to an UPDATE": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			require.Equal(l.t, 200, l.offers("UPDATE", offerSDP).StatusCode)
		},
		"answer in an ACK": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			r := l.renegotiates(context.Background(), "")
			r.says(200, offerSDP)
			l.next("ACK")
			require.NoError(l.t, <-r.ended)
		},
		"answer in a PRACK": func(l *peerCall, body string) {
			l.d.OnOffer(func(context.Context, dialog.Body) (dialog.Body, error) { return sdpBody(body), nil })
			r := l.renegotiates(context.Background(), "")
			r.says(183, offerSDP, reliably(1)...)
			l.reply(l.next("PRACK"), dialogtest.Response{Code: 200})
			r.says(200, "")
			l.next("ACK")
			require.NoError(l.t, <-r.ended)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				l := w.incoming(w.stack(stackIP), w.peer(peerIP))
				l.says(l.d.Hold, offerSDP)
				l.says(l.d.Resume, offerSDP)
				say(l, versioned(other, 2)) // its own count
				say(l, versioned(answerSDP, 3))
				l.d.OnOffer(nil)
				l.offers("UPDATE", offerSDP)
				require.Equal(t, []int{1, 2, 3, 4, 5, 6}, w.versionsRise(stackIP))
				l.hangUp(l.peer)
			})
		})
	}
}

// What has not changed keeps its version, and what counts higher its own.
func TestSameSDPKeepsItsVersion(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.incoming(w.stack(stackIP), w.peer(peerIP))
		again := func(body string) string {
			return l.says(func(ctx context.Context) error { return l.d.ReInvite(ctx, dialog.InviteOpts{Body: sdpBody(body)}) }, offerSDP)
		}
		require.Equal(t, answerSDP, again(answerSDP))
		require.Equal(t, versioned(answerSDP, 5), again(versioned(answerSDP, 5)))
		require.Equal(t, versioned(answerSDP, 5), again(answerSDP), "the same, which was 5")
		require.Equal(t, versioned(held(answerSDP), 6), again(held(answerSDP)))
		require.Equal(t, versioned(held(answerSDP), 9), again(versioned(held(answerSDP), 9)))
		lf := strings.ReplaceAll(versioned(answerSDP, 9), "\r\n", "\n")
		require.Equal(t, versioned(lf, 10), again(lf), "otherwise as it was written")
		require.Contains(t, l.says(l.d.Hold, offerSDP), "o=bob 7 11 ")
		require.Contains(t, again("v=0\r\no=John Doe 77 1 IN IP4 h\r\ns=-\r\n"), "o=John Doe 77 12 IN IP4 h\r\n")
		for _, odd := range []string{"no version in it", "v=0\r\no=- x y IN IP4 h\r\n"} {
			require.Equal(t, odd, again(odd), "nothing to count by")
		}
		l.stands(l.peer)
	})
}

// An offer that was refused has used its version up: also one that nobody can read.
func TestRefusedOfferUsesItsVersionUp(t *testing.T) {
	for name, body := range map[string]string{
		"that can be read":    versioned(held(answerSDP), 4),
		"that cannot be read": "junk\r\no=bob 7 4 IN IP4 10.0.0.2\r\nm=\r\n",
		"of several parts":    "--b\r\nContent-Type: application/sdp\r\n\r\no=bob 7 4 IN IP4 10.0.0.2\r\n--b--\r\n",
	} {
		for _, method := range []string{"INVITE", "UPDATE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					l := w.incoming(w.stack(stackIP, withoutRetry), w.peer(peerIP))
					contentType := "application/sdp"
					if strings.HasPrefix(body, "--b") {
						contentType = "multipart/mixed;boundary=b"
					}
					refused := began(func() error {
						if method == "INVITE" {
							return l.d.ReInvite(context.Background(), dialog.InviteOpts{Body: dialog.NewBody(contentType, []byte(body))})
						}
						_, err := l.d.Update(context.Background(), dialog.NewBody(contentType, []byte(body)))
						return err
					})
					l.reply(l.next(method), dialogtest.Response{Code: 488})
					require.Error(t, <-refused)
					require.Contains(t, string(l.offers("UPDATE", offerSDP).Body()), "o=bob 7 5 ")
					require.Contains(t, l.says(l.d.Hold, offerSDP), "o=bob 7 6 ")
					l.stands(l.peer)
				})
			})
		}
	}
}

// An offer of the peer's that was refused, whatever was wrong with it, changes nothing
// of ours.
func TestRefusedOfferOfThePeerUsesNoVersionUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.incoming(w.stack(stackIP), w.peer(peerIP))
		for _, theirs := range []string{notSDP, farSDP("m=image 4000 udptl t38")} {
			require.Equal(t, 488, l.offers("INVITE", theirs).StatusCode)
			require.Equal(t, 488, l.offers("UPDATE", theirs).StatusCode)
		}
		require.Equal(t, answerSDP, l.says(func(ctx context.Context) error {
			return l.d.ReInvite(ctx, dialog.InviteOpts{Body: sdpBody(answerSDP)})
		}, offerSDP))
		require.Contains(t, l.says(l.d.Hold, offerSDP), "o=bob 7 2 ")
		l.stands(l.peer)
	})
}

// The offer of a re-INVITE that is sent again after a 491 is the same; a preview in
// a provisional response counts too.
func TestVersionsOfWhatIsSaidMoreThanOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		l := w.rings(w.stack(stackIP), w.peer(peerIP))
		require.NoError(t, l.d.Provisional(context.Background(), 183, "", withSDP(answerSDP)))
		require.NoError(t, l.d.Accept(context.Background(), withSDP(strings.Replace(answerSDP, "5000", "5002", 1))))
		l.next("200 INVITE")
		l.acknowledge(1)
		synctest.Wait()
		result := began(func() error {
			return l.d.ReInvite(context.Background(), dialog.InviteOpts{Body: sdpBody(held(answerSDP))})
		})
		first := l.next("INVITE")
		l.reply(first, dialogtest.Response{Code: 491})
		second := l.next("INVITE")
		require.Equal(t, string(first.Message.Body()), string(second.Message.Body()))
		l.reply(second, dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: offerSDP})
		require.NoError(t, <-result)
		require.Equal(t, []int{1, 2, 3}, w.versionsRise(stackIP))
		l.hangUp(l.peer)
	})
}

// Reliable responses, PRACKs and UPDATEs before the answer count in one row with what
// follows.
func TestVersionsBeforeAndAfterTheAnswer(t *testing.T) {
	for _, caller := range []bool{true, false} {
		t.Run(fmt.Sprint("caller ", caller), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				s, p := w.stack(stackIP), w.peer(peerIP)
				var l *peerCall
				if caller {
					opts := offer(offerSDP)
					opts.PrackOffer = func(context.Context, dialog.ForkInfo) dialog.Body { return sdpBody(held(offerSDP)) }
					l = w.calls(s, p, opts)
					l.answer(dialogtest.Response{Code: 183, Body: answerSDP, Headers: reliably(1)})
					in := p.next("PRACK")
					p.reply(in, dialogtest.Response{Code: 200, Body: answerSDP})
					synctest.Wait()
				} else {
					l = w.rings(s, p, withHeaders(knows))
					l.progress(183, withSDP(offerSDP))
					l.pracked(p.next("183 INVITE").Message)
				}
				require.Equal(t, 200, l.offers("UPDATE", answerSDP).StatusCode)
				result := began(func() error { _, err := l.d.Update(context.Background(), sdpBody(offerSDP)); return err })
				p.reply(p.next("UPDATE"), dialogtest.Response{Code: 200, Headers: []string{contactOfPeer}, Body: answerSDP})
				require.NoError(t, <-result)
				if caller {
					l.answer(dialogtest.Response{Code: 200})
					require.NoError(t, l.d.WaitAnswer(context.Background()))
					p.next("ACK")
				} else {
					require.NoError(t, l.d.Accept(context.Background(), withSDP(offerSDP)), "what the UPDATE said")
					p.next("200 INVITE")
					l.acknowledge(1)
				}
				synctest.Wait()
				l.says(l.d.Hold, answerSDP)
				w.versionsRise(stackIP)
				l.hangUp(p)
			})
		})
	}
}
