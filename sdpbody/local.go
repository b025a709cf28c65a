package sdpbody

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sipdialog.example/dialog/internal/sdp"
	"sipdialog.example/dialog/internal/sipmsg"
)

// check returns the reason why the description would not follow RFC 8866.
func (l *Local) check() error {
	if !l.Addr.IsValid() || l.Addr.IsUnspecified() || l.Addr.Zone() != "" {
		return fmt.Errorf("address %v", l.Addr)
	}
	if strings.ContainsAny(l.User, " \t\r\n\x00") {
		return fmt.Errorf("user name %q", l.User)
	}
	for i := range l.Streams {
		if err := l.Streams[i].check(); err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return nil
}

func (s *Stream) check() error {
	switch {
	case s.Port < 0 || s.Port > 65535:
		return fmt.Errorf("port %d", s.Port)
	case len(s.Codecs) == 0:
		return errors.New("no codec")
	case !sipmsg.IsToken(s.kind()):
		return fmt.Errorf("kind %q", s.Kind)
	case slices.ContainsFunc(strings.Split(s.proto(), "/"), isNoToken):
		return fmt.Errorf("transport %q", s.Proto)
	case !slices.Contains([]Direction{"", SendRecv, SendOnly, RecvOnly, Inactive}, s.Direction):
		return fmt.Errorf("direction %q", s.Direction)
	case s.PTime < 0 || s.PTime%time.Millisecond != 0:
		return fmt.Errorf("packet time %v", s.PTime)
	case slices.ContainsFunc(s.Attributes, func(a string) bool { return a == "" || isNoText(a) }):
		return fmt.Errorf("attributes %q", s.Attributes)
	}
	seen := make(map[int]bool)
	for _, c := range s.Codecs {
		if err := c.check(); err != nil {
			return err
		}
		if seen[c.Payload] {
			return fmt.Errorf("payload type %d twice", c.Payload)
		}
		seen[c.Payload] = true
	}
	return nil
}

func (c Codec) check() error {
	parts := strings.Split(c.Name, "/")
	if c.Payload < 0 || c.Payload > 127 || len(parts) < 2 || len(parts) > 3 || isNoText(c.Params) {
		return fmt.Errorf("codec %+v", c)
	}
	for i, part := range parts {
		if _, err := strconv.ParseUint(part, 10, 32); isNoToken(part) || i > 0 && err != nil {
			return fmt.Errorf("codec name %q", c.Name)
		}
	}
	return nil
}

func isNoToken(s string) bool { return !sipmsg.IsToken(s) }

func isNoText(s string) bool { return strings.ContainsAny(s, "\r\n\x00") }

func (s *Stream) kind() string { return or(s.Kind, "audio") }

func (s *Stream) proto() string { return or(s.Proto, "RTP/AVP") }

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// description returns the offer of all streams.
func (l *Local) description(id uint64) *sdp.Description {
	addr := "IN IP4 " + l.Addr.Unmap().String()
	if !l.Addr.Unmap().Is4() {
		addr = "IN IP6 " + l.Addr.String()
	}
	d := &sdp.Description{Session: []sdp.Line{
		{Type: 'v', Value: "0"},
		{Type: 'o', Value: or(l.User, "-") + " " + strconv.FormatUint(id, 10) + " 1 " + addr},
		{Type: 's', Value: "-"},
		{Type: 'c', Value: addr},
		{Type: 't', Value: "0 0"},
	}}
	for i := range l.Streams {
		d.Media = append(d.Media, l.Streams[i].media())
	}
	return d
}

// media returns the m= line of a stream, and the lines below it.
func (s *Stream) media() sdp.Media {
	m := sdp.Media{Kind: s.kind(), Port: strconv.Itoa(s.Port), Proto: s.proto()}
	add := func(text string) { m.Lines = append(m.Lines, sdp.Line{Type: 'a', Value: text}) }
	for _, c := range s.Codecs {
		number := strconv.Itoa(c.Payload)
		m.Formats = append(m.Formats, number)
		add("rtpmap:" + number + " " + c.Name)
		if c.Params != "" {
			add("fmtp:" + number + " " + c.Params)
		}
	}
	if s.PTime > 0 {
		add("ptime:" + strconv.FormatInt(s.PTime.Milliseconds(), 10))
	}
	if s.RTCPMux {
		add("rtcp-mux")
	}
	for _, a := range s.Attributes {
		add(a)
	}
	add(or(string(s.Direction), string(SendRecv)))
	return m
}
