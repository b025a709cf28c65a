// Package sdpbody makes the session descriptions of calls for applications that handle no
// SDP themselves: offers of what they can send and receive, and answers to the offers of
// peers (RFC 3264, RFC 8866). Its rules are those of the answers that package dialog gives
// by default. It sends no media.
//
//	session, err := sdpbody.New(sdpbody.Local{
//		Addr:    netip.MustParseAddr("192.0.2.1"),
//		Streams: []sdpbody.Stream{{Port: 4000, Codecs: []sdpbody.Codec{sdpbody.PCMU(), sdpbody.DTMF(101)}}},
//	})
//
// Encryption (RFC 4568, RFC 5763), ICE and bundles are not negotiated: a stream whose
// transport we do not name is refused, and attributes of these in an offer are not
// repeated in the answer.
package sdpbody

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/offeranswer"
	"sipdialog.example/dialog/internal/sdp"
)

// Direction is the direction of a stream, as seen from our side; empty means SendRecv.
type Direction string

// The directions of RFC 8866 6.7.
const (
	SendRecv Direction = "sendrecv"
	SendOnly Direction = "sendonly"
	RecvOnly Direction = "recvonly"
	Inactive Direction = "inactive"
)

// Local is what our side can send and receive.
type Local struct {
	// Addr is the address of the media, IPv4 or IPv6.
	Addr netip.Addr
	// User is the user name in the o= line; empty means "-".
	User string
	// Streams are the m= lines of an offer, in their order. An answer has the lines of the
	// offer, each with the first of the Streams that fits it and is not used yet.
	Streams []Stream
}

// Stream is a stream of media.
type Stream struct {
	// Kind is the media type, such as "video"; empty means "audio".
	Kind string
	// Port is where we receive. Zero means no stream: the offer has its line with port 0.
	Port int
	// Proto is the transport; empty means "RTP/AVP".
	Proto string
	// Codecs are in the order of preference. An answer lists those that the offer has, in
	// the order and with the numbers of the offer (RFC 3264 6.1).
	Codecs []Codec
	// Direction restricts the stream; an answer has what the offer leaves of it.
	Direction Direction
	// PTime is the length of the packets that we would like to receive (RFC 8866 6.4), in
	// whole milliseconds; zero leaves it to the peer.
	PTime time.Duration
	// RTCPMux offers RTP and RTCP on one port; an answer has it if the offer has it (RFC
	// 5761 5.1.1).
	RTCPMux bool
	// Attributes are further a= lines, such as "label:1".
	Attributes []string
}

// Codec is a format of a stream.
type Codec struct {
	// Payload is the number in our offers, 0 to 127 (RFC 3551 6).
	Payload int
	// Name is the encoding with its clock rate and channels, such as "opus/48000/2".
	Name string
	// Params are the value of a=fmtp, such as "useinbandfec=1". They are sent as they are:
	// what the peer's mean is the application's concern.
	Params string
}

// PCMU is G.711 with the mu-law.
func PCMU() Codec { return Codec{Payload: 0, Name: "PCMU/8000"} }

// PCMA is G.711 with the A-law.
func PCMA() Codec { return Codec{Payload: 8, Name: "PCMA/8000"} }

// G722 is G.722; its clock rate is that of RFC 3551 4.5.2.
func G722() Codec { return Codec{Payload: 9, Name: "G722/8000"} }

// DTMF are keys as events in the stream (RFC 4733), with a dynamic payload type such as
// 101. A stream is not accepted for its keys alone if it has other codecs.
func DTMF(payload int) Codec {
	return Codec{Payload: payload, Name: "telephone-event/8000", Params: "0-15"}
}

// Session makes the offers and answers of one call: they have one o= line (RFC 3264 8),
// whose version package dialog raises with each change. Make one Session for each call. It
// is immutable, and its methods never block.
type Session struct {
	description *sdp.Description
	wanted      *sdp.Wanted
}

// New returns the session of a new call.
//
// Errors: dialog.ErrInvalidArgument.
func New(local Local) (*Session, error) {
	if err := local.check(); err != nil {
		return nil, fmt.Errorf("sdpbody: %w: %w", dialog.ErrInvalidArgument, err)
	}
	description := local.description(rand.Uint64() >> 2)
	return &Session{description, &sdp.Wanted{Description: *description, AnyNumber: true}}, nil
}

// Offer returns an offer of all streams (RFC 3264 5).
func (s *Session) Offer() dialog.Body { return bodyOf(s.description) }

// Answer returns the answer to an offer, or to the part of it that is SDP: for each line of
// the offer a line with what both sides have, or with port 0 (RFC 3264 6). For a nil offer,
// and one without Data, it returns an offer.
//
// Errors: *dialog.Refusal, 488 with a Warning (no stream is acceptable, or the offer
// cannot be read).
func (s *Session) Answer(offer dialog.Body) (dialog.Body, error) {
	if offer == nil || len(offer.Data()) == 0 {
		return s.Offer(), nil
	}
	part := offeranswer.Description(offer)
	if part == nil || !offeranswer.IsSDP(part) {
		return nil, refusal(399, "no session description")
	}
	theirs, err := sdp.Parse(part.Data())
	if err != nil {
		return nil, refusal(399, "offer cannot be read")
	}
	answer, why := s.wanted.Answer(theirs)
	if why != nil {
		return nil, refusal(int(why.Warnings[0]), why.Warnings[0].String())
	}
	return bodyOf(answer), nil
}

// Decide is Answer for [dialog.Dialog.OnOfferRequest]: with it, Accept needs no body.
func (s *Session) Decide(_ context.Context, r *dialog.OfferRequest) (dialog.Body, error) {
	return s.Answer(r.Offer)
}

// With returns the session with other streams, such as one that is held: the same o= line,
// so offers and answers of both belong to one call.
//
// Errors: dialog.ErrInvalidArgument.
func (s *Session) With(local Local) (*Session, error) {
	next, err := New(local)
	if err != nil {
		return nil, err
	}
	at := originOf(s.description)
	next.description.Session[originOf(next.description)] = s.description.Session[at]
	return next, nil
}

func originOf(d *sdp.Description) int {
	for i, l := range d.Session {
		if l.Type == 'o' {
			return i
		}
	}
	return -1
}

func bodyOf(d *sdp.Description) dialog.Body {
	return dialog.NewBody(offeranswer.TypeSDP, d.Bytes())
}

func refusal(code int, text string) error {
	return &dialog.Refusal{Status: 488, Headers: []dialog.Header{{Name: "Warning", Value: fmt.Sprintf("%d dialog %q", code, text)}}}
}
