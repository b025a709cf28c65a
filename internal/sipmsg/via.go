package sipmsg

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

var errVia = errors.New("malformed Via")

// Via is a view of one value of a Via (RFC 3261 20.42, 25.1).
type Via struct {
	Protocol, Version, Transport string
	SentBy
}

// SentBy is a Via without its sent-protocol.
type SentBy struct {
	Host   string // an IPv6 address without its brackets
	Port   int    // 0: none
	Params Params
}

// ParseVia reads one value.
func ParseVia(s string) (Via, error) {
	v, rest, ok := cutProtocol(s)
	if !ok {
		return v, errVia
	}
	if !v.cutSentBy(&rest) {
		return v, errVia
	}
	v.Params = Params(rest)
	if v.Params != "" && v.Params[0] != ';' || !v.Params.Valid() {
		return v, errVia
	}
	return v, nil
}

// cutProtocol takes sent-protocol off, with the white space behind it.
func cutProtocol(s string) (v Via, rest string, ok bool) {
	name, s, _ := strings.Cut(s, "/")
	version, s, _ := strings.Cut(s, "/")
	s = trimLeft(s)
	end := strings.IndexAny(s, lws)
	if end < 0 {
		return v, "", false
	}
	v = Via{Protocol: trim(name), Version: trim(version), Transport: s[:end]}
	return v, trimLeft(s[end:]), IsToken(v.Protocol) && IsToken(v.Version) && IsToken(v.Transport)
}

// cutSentBy takes host and port off, with the white space behind them.
func (v *SentBy) cutSentBy(s *string) bool {
	end := 0
	if strings.HasPrefix(*s, "[") {
		end = strings.IndexByte(*s, ']') + 1
		v.Host = strings.Trim((*s)[:end], "[]")
	} else {
		for end < len(*s) && isHostChar((*s)[end]) {
			end++
		}
		v.Host = (*s)[:end]
	}
	rest := trimLeft((*s)[end:])
	if strings.HasPrefix(rest, ":") {
		var err error
		if v.Port, rest, err = cutPort(trimLeft(rest[1:])); err != nil {
			return false
		}
	}
	*s = trimLeft(rest)
	return v.Host != ""
}

// Branch returns the branch parameter; empty without one.
func (v *SentBy) Branch() string {
	branch, _ := v.Params.Get("branch")
	return branch
}

// names reports whether sent-by is that address.
func (v *SentBy) names(address netip.Addr) bool {
	if !isAddressChar(v.Host) {
		return false
	}
	host, err := netip.ParseAddr(v.Host)
	return err == nil && host.Unmap() == address
}

// isAddressChar reports whether a host begins as an address may: most names do
// not, and asking netip costs an error.
func isAddressChar(host string) bool {
	c := lower(host[0])
	return isDigit(c) || c == ':' || c >= 'a' && c <= 'f'
}

// fill makes sipgo's header of the view, but for its parameters.
func (v *Via) fill(h *sip.ViaHeader) {
	h.ProtocolName, h.ProtocolVersion, h.Transport = v.Protocol, v.Version, v.Transport
	h.Host, h.Port = v.Host, v.Port
	if strings.Count(v.Host, ".") == 3 && strings.Contains(v.Host, ":") {
		h.Host = "[" + v.Host + "]" // sipgo takes it for IPv4, and writes no brackets
	}
}

// SIP returns the value as sipgo has it; parameter names are in lower case.
func (v *Via) SIP() *sip.ViaHeader {
	h := &sip.ViaHeader{}
	v.fill(h)
	h.Params = v.Params.appendTo(nil, true)
	return h
}

// appendMarked appends a value of a top Via, with the address that the request
// came from written into it (RFC 3261 18.2.1, RFC 3581 4): all else is as it
// came. A received or rport of the peer's own is left out: responses would go there.
func appendMarked(dst []byte, value string, source netip.AddrPort, received bool) []byte {
	via, err := ParseVia(value)
	if err != nil {
		return append(dst, value...)
	}
	p := via.Params
	dst = append(dst, value[:len(value)-len(p)]...)
	for {
		param, rest, ok := p.Next()
		if !ok {
			break
		}
		switch text := string(p[:len(p)-len(rest)]); {
		case EqualFold(param.Name, "received"):
		case EqualFold(param.Name, "rport"):
			name := strings.Index(text, param.Name) + len(param.Name)
			dst = append(append(dst, text[:name]...), '=')
			dst = strconv.AppendUint(dst, uint64(source.Port()), 10)
			dst = append(dst, text[len(trimRight(text)):]...)
		default:
			dst = append(dst, text...)
		}
		p = rest
	}
	if received {
		dst = append(dst, ";received="...)
		dst = source.Addr().AppendTo(dst)
	}
	return dst
}
