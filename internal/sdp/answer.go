package sdp

import (
	"slices"
	"strings"
)

// Unacceptable is the error for an offer without an acceptable line.
type Unacceptable struct {
	Warnings []Warning
}

// Error returns the first reason.
func (u *Unacceptable) Error() string { return "sdp: no line acceptable: " + u.Warnings[0].String() }

// Warning is a code of the Warning header (RFC 3261 20.43).
type Warning int

// The reasons why a line of an offer is not acceptable.
const (
	NoTransport Warning = 302
	NoMedia     Warning = 304
	NoFormat    Warning = 305
	NoSense     Warning = 307
)

// String returns the text that RFC 3261 20.43 recommends.
func (w Warning) String() string {
	switch w {
	case NoTransport:
		return "Incompatible transport protocol"
	case NoMedia:
		return "Media type not available"
	case NoFormat:
		return "Incompatible media format"
	default:
		return "Session description parameter not understood"
	}
}

// Answer returns the answer to an offer: for each line of the offer a line with the
// formats that both sides have, or port 0 if no wanted stream matches (RFC 3264 6). An
// offer without an acceptable line has no answer, unless all of its lines have port 0.
func (w *Wanted) Answer(offer *Description) (*Description, *Unacceptable) {
	streams, place := w.place(offer.Media, func(stream, line Media) bool {
		return stream.isOpen() && line.isOpen() && sameKind(stream, line) && len(common(w.inNumbersOf(line, stream), line)) > 0
	})
	answer := &Description{Session: withTimesOf(offer, slices.DeleteFunc(slices.Clone(w.Session), isDirection))}
	var why []Warning
	for i, line := range offer.Media {
		switch {
		case place[i] >= 0:
			m := w.inNumbersOf(line, streams[place[i]])
			direction := offer.Direction(line).mirrored() & w.Direction(m)
			m = m.onlyFormats(common(m, line)).onlyOffered(line).with(direction)
			m.Kind, m.Proto = line.Kind, line.Proto
			answer.Media = append(answer.Media, m)
			continue
		case !line.isClosed():
			why = append(why, whyNot(streams, line)...)
		}
		answer.Media = append(answer.Media, line.refused())
	}
	if len(why) > 0 && !slices.ContainsFunc(answer.Media, Media.isOpen) {
		slices.SortFunc(why, func(a, b Warning) int { return a.rank() - b.rank() })
		return nil, &Unacceptable{slices.Compact(why)}
	}
	return answer, nil
}

// inNumbersOf returns a stream with the payload types of a line of an offer, if the
// application takes any.
func (w *Wanted) inNumbersOf(line, stream Media) Media {
	if !w.AnyNumber {
		return stream
	}
	return stream.numberedAs(line)
}

// whyNot returns the reasons why no stream matches a line.
func whyNot(streams []Media, line Media) []Warning {
	kind := func(m Media) bool { return m.isOpen() && strings.EqualFold(m.Kind, line.Kind) }
	whole := func(m Media) bool { return m.isOpen() && sameKind(m, line) }
	switch {
	case !line.isOpen():
		return []Warning{NoSense}
	case !slices.ContainsFunc(streams, kind):
		return []Warning{NoMedia}
	case !slices.ContainsFunc(streams, whole):
		return []Warning{NoMedia, NoTransport}
	default:
		return []Warning{NoFormat}
	}
}

// rank orders the reasons: those that most peers understand come first.
func (w Warning) rank() int {
	return slices.Index([]Warning{NoMedia, NoFormat, NoTransport, NoSense}, w)
}

// Refusal returns the answer with port 0 in every line of an offer (RFC 3264 6). Its
// session lines are those of ours, or of the offer if ours is nil.
func Refusal(offer, ours *Description) *Description {
	if ours == nil {
		ours = offer
	}
	session := slices.DeleteFunc(slices.Clone(ours.Session), isType('a'))
	refusal := &Description{Session: withTimesOf(offer, session)}
	for _, line := range offer.Media {
		refusal.Media = append(refusal.Media, line.refused())
	}
	return refusal
}

// withTimesOf returns session lines with the time of the offer (RFC 3264 6). If the offer
// has none, they keep their own time, or get "0 0".
func withTimesOf(offer *Description, lines []Line) []Line {
	isTime := func(l Line) bool { return strings.IndexByte("trz", l.Type) >= 0 }
	times := slices.DeleteFunc(slices.Clone(offer.Session), func(l Line) bool { return !isTime(l) })
	if slices.ContainsFunc(times, isType('t')) {
		return append(slices.DeleteFunc(slices.Clone(lines), isTime), times...)
	}
	if !slices.ContainsFunc(lines, isType('t')) {
		return append(slices.Clone(lines), Line{'t', "0 0"})
	}
	return lines
}

// common returns the formats of a stream that a line has too, in the order of the
// stream. It returns none if only auxiliary formats match, and the stream has others.
func common(stream, line Media) []string {
	var formats []string
	auxiliary := 0
	for _, format := range stream.Formats {
		if !slices.Contains(line.Formats, format) || !sameCodec(stream.codec(format), line.codec(format)) {
			continue
		}
		formats = append(formats, format)
		if stream.isAuxiliary(format) {
			auxiliary++
		}
	}
	if auxiliary == len(formats) && slices.ContainsFunc(stream.Formats, stream.isMain) {
		return nil
	}
	return formats
}

// isAuxiliary reports whether a format is used only together with others: DTMF events and
// comfort noise.
func (m Media) isAuxiliary(format string) bool {
	name, _, _ := strings.Cut(m.codec(format), "/")
	return strings.EqualFold(name, "telephone-event") || strings.EqualFold(name, "CN") || name == "" && format == "13"
}

// sameCodec reports whether two codecs are equal, or one is not given. A dynamic payload
// type may be bound to any codec (RFC 3264 5.1).
func sameCodec(a, b string) bool { return a == "" || b == "" || strings.EqualFold(a, b) }

// codec returns the encoding that rtpmap gives to a format. It drops "/1", the default
// number of channels (RFC 8866 6.6).
func (m Media) codec(format string) string {
	for _, l := range m.Lines {
		rest, found := strings.CutPrefix(l.Value, "rtpmap:")
		if payload, codec, _ := strings.Cut(rest, " "); l.Type == 'a' && found && payload == format {
			return strings.TrimSuffix(strings.TrimSpace(codec), "/1")
		}
	}
	return ""
}

// formatOf returns the format that a line such as a=fmtp describes; ok is false if the
// line describes no single format.
func formatOf(l Line) (format string, ok bool) {
	name, value, _ := strings.Cut(l.Value, ":")
	if l.Type != 'a' || !slices.Contains([]string{"rtpmap", "fmtp", "rtcp-fb"}, name) {
		return "", false
	}
	format, _, _ = strings.Cut(strings.TrimSpace(value), " ")
	return format, format != "*"
}

// onlyFormats returns the stream with only these formats, and without the lines that
// describe others.
func (m Media) onlyFormats(formats []string) Media {
	m.Formats = formats
	m.Lines = slices.DeleteFunc(slices.Clone(m.Lines), func(l Line) bool {
		format, about := formatOf(l)
		return about && !slices.Contains(formats, format)
	})
	return m
}

// andFormatsOf returns the stream with those formats of the other stream added whose
// numbers and codecs it does not have.
func (m Media) andFormatsOf(other Media) Media {
	has := func(format string) bool { return slices.Contains(m.Formats, format) || m.hasCodec(other.codec(format)) }
	missing := slices.DeleteFunc(slices.Clone(other.Formats), has)
	m.Formats = slices.Concat(m.Formats, missing)
	m.Lines = slices.Clone(m.Lines)
	for _, l := range other.Lines {
		if format, about := formatOf(l); about && slices.Contains(missing, format) {
			m.Lines = append(m.Lines, l)
		}
	}
	return m
}

func (m Media) hasCodec(codec string) bool {
	return codec != "" && slices.ContainsFunc(m.Formats, func(format string) bool { return strings.EqualFold(m.codec(format), codec) })
}
