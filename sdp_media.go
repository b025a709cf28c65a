package dialog

import (
	"bytes"
	"slices"
	"strings"

	"github.com/pion/sdp/v3"
)

// answerMedia gives our session the offer's m-lines (RFC 3264 6): those we
// have with the direction mirrored, the others refused.
func answerMedia(ours, theirs *sdp.SessionDescription) {
	media := make([]*sdp.MediaDescription, len(theirs.MediaDescriptions))
	for i, offered := range theirs.MediaDescriptions {
		media[i] = refusedMedia(offered)
		if i < len(ours.MediaDescriptions) {
			if own := matchMedia(ours.MediaDescriptions[i], offered); own != nil {
				wanted := directionOf(ours, own)
				setDirection(own, allowed(mirrored(directionOf(theirs, offered)), wanted))
				media[i] = own
			}
		}
	}
	ours.MediaDescriptions = media
	ours.TimeDescriptions = theirs.TimeDescriptions
	ours.Attributes = slices.DeleteFunc(ours.Attributes, isDirection)
}

// matchMedia returns our m-line cut down to the offered formats, or nil when
// it is another medium, or nothing is left of it.
func matchMedia(own, offered *sdp.MediaDescription) *sdp.MediaDescription {
	if own.MediaName.Media != offered.MediaName.Media || !slices.Equal(own.MediaName.Protos, offered.MediaName.Protos) ||
		own.MediaName.Port.Value == 0 || offered.MediaName.Port.Value == 0 {
		return nil
	}
	own.MediaName.Formats = slices.DeleteFunc(own.MediaName.Formats, func(format string) bool {
		return !slices.Contains(offered.MediaName.Formats, format) || !sameCodec(own, offered, format)
	})
	if len(own.MediaName.Formats) == 0 {
		return nil
	}
	own.Attributes = slices.DeleteFunc(own.Attributes, func(a sdp.Attribute) bool {
		return (a.Key == "rtpmap" || a.Key == "fmtp" || a.Key == "rtcp-fb") && !describes(a, own.MediaName.Formats)
	})
	return own
}

// sameCodec reports whether a payload type is the same codec on both sides, where
// they say: a dynamic one may be bound to any (RFC 3264 5.1).
func sameCodec(own, offered *sdp.MediaDescription, format string) bool {
	a, b := codecOf(own, format), codecOf(offered, format)
	return a == "" || b == "" || strings.EqualFold(a, b)
}

// codecOf is the encoding that rtpmap gives to a payload type; one channel is as good as
// none (RFC 4566 6).
func codecOf(media *sdp.MediaDescription, format string) string {
	for _, a := range media.Attributes {
		if payload, codec, _ := strings.Cut(a.Value, " "); a.Key == "rtpmap" && payload == format {
			return strings.TrimSuffix(strings.TrimSpace(codec), "/1")
		}
	}
	return ""
}

// describes reports whether an attribute is about one of the formats.
func describes(a sdp.Attribute, formats []string) bool {
	format, _, _ := strings.Cut(a.Value, " ")
	return format == "*" || slices.Contains(formats, format)
}

// refusedMedia is an m-line with port 0 (RFC 3264 6).
func refusedMedia(offered *sdp.MediaDescription) *sdp.MediaDescription {
	name := offered.MediaName
	name.Port = sdp.RangedPort{}
	return &sdp.MediaDescription{MediaName: name}
}

func isDirection(a sdp.Attribute) bool {
	switch a.Key {
	case sdp.AttrKeySendRecv, sdp.AttrKeySendOnly, sdp.AttrKeyRecvOnly, sdp.AttrKeyInactive:
		return true
	}
	return false
}

// directionOf is an m-line's direction, or the session's; sendrecv without
// either (RFC 4566 6).
func directionOf(session *sdp.SessionDescription, media *sdp.MediaDescription) string {
	for _, attributes := range [][]sdp.Attribute{media.Attributes, session.Attributes} {
		if i := slices.IndexFunc(attributes, isDirection); i >= 0 {
			return attributes[i].Key
		}
	}
	return sdp.AttrKeySendRecv
}

// mirrored is the direction that answers another (RFC 3264 6.1).
func mirrored(direction string) string {
	switch direction {
	case sdp.AttrKeySendOnly:
		return sdp.AttrKeyRecvOnly
	case sdp.AttrKeyRecvOnly:
		return sdp.AttrKeySendOnly
	default:
		return direction
	}
}

// allowed cuts a direction down to what the application wants: what it has put
// on hold is not resumed because the peer asks for more.
func allowed(direction, wanted string) string {
	sends := direction != sdp.AttrKeyRecvOnly && direction != sdp.AttrKeyInactive &&
		wanted != sdp.AttrKeyRecvOnly && wanted != sdp.AttrKeyInactive
	receives := direction != sdp.AttrKeySendOnly && direction != sdp.AttrKeyInactive &&
		wanted != sdp.AttrKeySendOnly && wanted != sdp.AttrKeyInactive
	switch {
	case sends && receives:
		return sdp.AttrKeySendRecv
	case sends:
		return sdp.AttrKeySendOnly
	case receives:
		return sdp.AttrKeyRecvOnly
	default:
		return sdp.AttrKeyInactive
	}
}

// restoreDirections gives our session the directions that the application last
// chose, not those that the peer's hold left in it.
func restoreDirections(ours *sdp.SessionDescription, own Body) {
	if own == nil {
		return
	}
	chosen, ok := parseSDP(own)
	if !ok {
		return
	}
	for i, media := range ours.MediaDescriptions {
		if i < len(chosen.MediaDescriptions) {
			setDirection(media, directionOf(chosen, chosen.MediaDescriptions[i]))
		}
	}
}

func setDirection(media *sdp.MediaDescription, direction string) {
	media.Attributes = slices.DeleteFunc(media.Attributes, isDirection)
	media.Attributes = append(media.Attributes, sdp.Attribute{Key: direction})
}

// refusedAnswer answers every m-line of an offer with port 0; nil when there is
// none, or it cannot be read.
func refusedAnswer(offer *SimpleBody) Body {
	if offer == nil {
		return nil
	}
	theirs, ok := parseSDP(offer)
	if !ok {
		return nil
	}
	answer := *theirs
	answer.Attributes = nil
	answer.MediaDescriptions = nil
	for _, offered := range theirs.MediaDescriptions {
		answer.MediaDescriptions = append(answer.MediaDescriptions, refusedMedia(offered))
	}
	data, err := answer.Marshal()
	if err != nil {
		return nil
	}
	return NewBody(typeSDP, bytes.Clone(data))
}
