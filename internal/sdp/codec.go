package sdp

import (
	"slices"
	"strings"
)

// static has the codecs of the payload types that need no a=rtpmap (RFC 3551 6).
var static = map[string]string{
	"0": "PCMU/8000", "3": "GSM/8000", "4": "G723/8000", "5": "DVI4/8000", "6": "DVI4/16000", "7": "LPC/8000", "8": "PCMA/8000",
	"9": "G722/8000", "10": "L16/44100/2", "11": "L16/44100", "12": "QCELP/8000", "13": "CN/8000", "14": "MPA/90000", "15": "G728/8000",
	"16": "DVI4/11025", "17": "DVI4/22050", "18": "G729/8000", "25": "CelB/90000", "26": "JPEG/90000", "28": "nv/90000", "31": "H261/90000",
	"32": "MPV/90000", "33": "MP2T/90000", "34": "H263/90000",
}

// codecOrStatic is codec, but also knows the static payload types.
func (m Media) codecOrStatic(format string) string {
	if codec := m.codec(format); codec != "" {
		return codec
	}
	return static[format]
}

// fmtp returns the parameters of a format; empty if there are none.
func (m Media) fmtp(format string) string {
	for _, l := range m.Lines {
		rest, found := strings.CutPrefix(l.Value, "fmtp:")
		if payload, params, _ := strings.Cut(rest, " "); l.Type == 'a' && found && payload == format {
			return strings.ToLower(strings.ReplaceAll(params, " ", ""))
		}
	}
	return ""
}

// numberedAs returns the stream with the payload types that a line of an offer has for its
// codecs (RFC 3264 6.1), in the order of the line. Codecs that the line does not have are
// left out. Parameters are not interpreted: a codec goes to the first format of its name,
// but to one with equal parameters if there is one.
func (m Media) numberedAs(line Media) Media {
	numberOf := make(map[string]string) // of ours, the number in the offer
	for _, equal := range []bool{true, false} {
		for _, offered := range line.Formats {
			for _, ours := range m.Formats {
				if numberOf[ours] == "" && m.matches(ours, line, offered) && (!equal || m.fmtp(ours) == line.fmtp(offered)) {
					numberOf[ours] = offered
				}
			}
		}
	}
	numbered := m
	numbered.Formats, numbered.Lines = nil, nil
	for _, offered := range line.Formats {
		for _, ours := range m.Formats {
			if numberOf[ours] == offered && !slices.Contains(numbered.Formats, offered) {
				numbered.Formats = append(numbered.Formats, offered)
				numbered.Lines = append(numbered.Lines, m.about(ours, offered)...)
			}
		}
	}
	if slices.ContainsFunc(m.Formats, m.isMain) && !slices.ContainsFunc(numbered.Formats, numbered.isMain) {
		numbered.Formats = nil
	}
	for _, l := range m.Lines {
		if _, about := formatOf(l); !about {
			numbered.Lines = append(numbered.Lines, l)
		}
	}
	return numbered
}

func (m Media) isMain(format string) bool { return !m.isAuxiliary(format) }

// matches reports whether a format of ours and one of a line are the same codec. Formats
// without a name, such as those of an image stream, are the same if they are equal.
func (m Media) matches(ours string, line Media, offered string) bool {
	a, b := m.codecOrStatic(ours), line.codecOrStatic(offered)
	if a == "" || b == "" {
		return ours == offered
	}
	return strings.EqualFold(a, b)
}

// about returns the lines that describe a format, under another number.
func (m Media) about(format, number string) []Line {
	var lines []Line
	for _, l := range m.Lines {
		if of, about := formatOf(l); about && of == format {
			name, value, _ := strings.Cut(l.Value, ":")
			lines = append(lines, Line{'a', name + ":" + number + strings.TrimPrefix(strings.TrimSpace(value), format)})
		}
	}
	return lines
}

// ifOffered has the attributes that an answer has only if the offer has them (RFC 5761
// 5.1.1, RFC 5506 5.2).
var ifOffered = []string{"rtcp-mux", "rtcp-rsize"}

// onlyOffered returns the stream without the attributes that an answer to the line must
// not have.
func (m Media) onlyOffered(line Media) Media {
	m.Lines = slices.DeleteFunc(slices.Clone(m.Lines), func(l Line) bool {
		return l.Type == 'a' && slices.Contains(ifOffered, l.Value) && !slices.Contains(line.Lines, l)
	})
	return m
}
