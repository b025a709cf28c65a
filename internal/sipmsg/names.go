package sipmsg

// id is a header field that this package, or a short name, knows.
type id uint8

const (
	idOther id = iota
	idVia
	idFrom
	idTo
	idCallID
	idCSeq
	idContact
	idRoute
	idRecordRoute
	idMaxForwards
	idContentLength
	idContentType
	idReferTo
	idReferredBy
	idSupported
	idSessionExpires
	idEvent
	idAllowEvents
	idContentEncoding
	idSubject
	idAcceptContact
	idRejectContact
	idRequestDisposition
	idIdentity
	idIdentityInfo
	idCount
)

// longNames are only read.
var longNames = [idCount]string{
	idVia: "Via", idFrom: "From", idTo: "To", idCallID: "Call-ID", idCSeq: "CSeq",
	idContact: "Contact", idRoute: "Route", idRecordRoute: "Record-Route",
	idMaxForwards: "Max-Forwards", idContentLength: "Content-Length", idContentType: "Content-Type",
	idReferTo: "Refer-To", idReferredBy: "Referred-By",
	idSupported: "Supported", idSessionExpires: "Session-Expires", idEvent: "Event", idAllowEvents: "Allow-Events",
	idContentEncoding: "Content-Encoding", idSubject: "Subject", idAcceptContact: "Accept-Contact",
	idRejectContact: "Reject-Contact", idRequestDisposition: "Request-Disposition",
	idIdentity: "Identity", idIdentityInfo: "Identity-Info",
}

// shortNames are only read.
var shortNames = [idCount]byte{
	idVia: 'v', idFrom: 'f', idTo: 't', idCallID: 'i', idContact: 'm', idContentLength: 'l', idContentType: 'c',
	idReferTo: 'r', idReferredBy: 'b', idSupported: 'k', idSessionExpires: 'x', idEvent: 'o', idAllowEvents: 'u',
	idContentEncoding: 'e', idSubject: 's', idAcceptContact: 'a', idRejectContact: 'j', idRequestDisposition: 'd',
	idIdentity: 'y', idIdentityInfo: 'n',
}

// byLength are the long names of each length; only read.
var byLength = namesByLength()

func namesByLength() (lists [20][]id) {
	for i := idVia; i < idCount; i++ {
		n := len(longNames[i])
		lists[n] = append(lists[n], i)
	}
	return lists
}

// idOf finds a name, long or compact, in any case (RFC 3261 7.3.1, 7.3.3, and
// the IANA registry of header fields).
func idOf(name string) id {
	if len(name) == 1 {
		return compact(name[0])
	}
	if len(name) >= len(byLength) {
		return idOther
	}
	for _, i := range byLength[len(name)] {
		if EqualFold(longNames[i], name) {
			return i
		}
	}
	return idOther
}

func compact(c byte) id {
	for i := idVia; i < idCount; i++ {
		if shortNames[i] == lower(c) {
			return i
		}
	}
	return idOther
}

// SameName reports whether two header names mean the same field.
func SameName(a, b string) bool {
	if len(a) != 1 && len(b) != 1 {
		return EqualFold(a, b)
	}
	known := idOf(a)
	if known == idOther {
		return EqualFold(a, b)
	}
	return known == idOf(b)
}
