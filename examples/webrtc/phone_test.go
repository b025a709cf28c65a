package main

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// phone is a SIP telephone over TCP whose media is pion's: what a browser can talk to
// without a gateway.
type phone struct {
	*dialog.Stack
	t     *testing.T
	calls chan *call
}

func newPhone(t *testing.T) *phone {
	stack, err := dialog.NewStack(&dialog.StackConfig{
		Transport: &dialog.TransportConfig{Protocol: "tcp", Address: "127.0.0.1"},
		From:      &dialog.Address{URI: sip.Uri{Scheme: "sip", User: "phone", Host: "127.0.0.1"}},
	})
	require.NoError(t, err)
	p := &phone{Stack: stack, t: t, calls: make(chan *call, 1)}
	stack.OnCall(func(d *dialog.Dialog) {
		c := p.newCall()
		c.take(d)
		p.calls <- c
	})
	require.NoError(t, stack.Start(context.Background()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, stack.Shutdown(ctx))
	})
	return p
}

// call is a call of the phone.
type call struct {
	*dialog.Dialog
	peer     *webrtc.PeerConnection
	offers   chan string // the direction in each offer of the other side
	received atomic.Int64
}

// newCall prepares the media of a call: PCMU both ways. It is closed with the test.
func (p *phone) newCall() *call {
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	peer, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	require.NoError(p.t, err)
	c := &call{peer: peer, offers: make(chan string, 10)}
	track, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU}, "audio", "phone")
	require.NoError(p.t, err)
	_, err = peer.AddTrack(track)
	require.NoError(p.t, err)
	peer.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			if _, _, err := track.ReadRTP(); err != nil {
				return
			}
			c.received.Add(1)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		speak(ctx, track)
	}()
	p.t.Cleanup(func() {
		stop()
		<-sent
		require.NoError(p.t, peer.Close())
	})
	return c
}

// speak sends a packet of 20 ms after the other. Before the call is connected they are lost.
func speak(ctx context.Context, track *webrtc.TrackLocalStaticSample) {
	clock := time.NewTicker(20 * time.Millisecond)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			_ = track.WriteSample(media.Sample{Data: bytes.Repeat([]byte{0x80, 0x00}, 80), Duration: 20 * time.Millisecond})
		case <-ctx.Done():
			return
		}
	}
}

// take lets pion answer the offers in a call.
func (c *call) take(d *dialog.Dialog) {
	c.Dialog = d
	d.OnOfferRequest(func(_ context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
		offer := string(r.Offer.Data())
		if err := c.peer.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
			return nil, err
		}
		c.offers <- direction(offer)
		answer, err := c.peer.CreateAnswer(nil)
		if err != nil {
			return nil, err
		}
		return c.local(answer)
	})
}

// local returns a session of ours with all its candidates: SIP has no trickle.
func (c *call) local(session webrtc.SessionDescription) (dialog.Body, error) {
	gathered := webrtc.GatheringCompletePromise(c.peer)
	if err := c.peer.SetLocalDescription(session); err != nil {
		return nil, err
	}
	<-gathered
	return dialog.NewBody("application/sdp", []byte(c.peer.LocalDescription().SDP)), nil
}

// dial calls, and waits until the other side has answered.
func (p *phone) dial(ctx context.Context, target sip.Uri, rings func()) *call {
	c := p.newCall()
	offer, err := c.peer.CreateOffer(nil)
	require.NoError(p.t, err)
	body, err := c.local(offer)
	require.NoError(p.t, err)
	_, err = p.NewInvite(ctx, target, dialog.InviteOpts{Body: body, Setup: c.take})
	require.NoError(p.t, err)
	rings()
	require.NoError(p.t, c.WaitAnswer(ctx))
	answer := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(c.Response().Body())}
	require.NoError(p.t, c.peer.SetRemoteDescription(answer))
	return c
}

// direction returns the direction of a session's audio.
func direction(session string) string {
	for _, way := range []string{"sendonly", "recvonly", "inactive"} {
		if strings.Contains(session, "a="+way+"\r\n") {
			return way
		}
	}
	return "sendrecv"
}
