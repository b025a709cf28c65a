package txn

import "github.com/emiago/sipgo/sip"

// respond builds a response to req (RFC 3261 8.2.6) from whatever headers req
// has. toTag is added to a To without tag, except in a 100.
func respond(req *sip.Request, code int, reason, toTag string) *sip.Response {
	if reason == "" {
		reason = reasonPhrase(code)
	}
	res := sip.NewResponse(code, reason)
	// Sharing headers would let a change of the response reach the request.
	for _, h := range req.Headers() {
		switch h := h.(type) {
		case *sip.ViaHeader, *sip.FromHeader, *sip.CallIDHeader, *sip.CSeqHeader:
			res.AppendHeader(sip.HeaderClone(h))
		case *sip.ToHeader:
			res.AppendHeader(answerTo(h, code, toTag))
		case *sip.RecordRouteHeader:
			if copiesRecordRoute(req.Method, code) {
				res.AppendHeader(h.Clone())
			}
		default:
			if code == sip.StatusTrying && h.Name() == "Timestamp" { // RFC 3261 8.2.6.1
				res.AppendHeader(sip.NewHeader(h.Name(), h.Value()))
			}
		}
	}
	res.SetBody(nil)
	res.SetTransport(req.Transport())
	return res
}

// trying returns the 100 to req. It shares the request's headers, and is to be
// sent at once and not kept.
func trying(req *sip.Request) *sip.Response {
	res := sip.NewResponse(sip.StatusTrying, reasonPhrase(sip.StatusTrying))
	for _, h := range req.Headers() {
		switch h.(type) {
		case *sip.ViaHeader, *sip.FromHeader, *sip.ToHeader, *sip.CallIDHeader, *sip.CSeqHeader:
			res.AppendHeader(h)
		default:
			if h.Name() == "Timestamp" { // RFC 3261 8.2.6.1
				res.AppendHeader(h)
			}
		}
	}
	res.SetBody(nil)
	res.SetTransport(req.Transport())
	return res
}

func answerTo(to *sip.ToHeader, code int, tag string) sip.Header {
	clone := sip.HeaderClone(to)
	answer, ok := clone.(*sip.ToHeader)
	if ok && code != sip.StatusTrying && !answer.Params.Has("tag") {
		answer.Params.Add("tag", tag)
	}
	return clone
}

// copiesRecordRoute: in responses that make a dialog or refresh it (RFC 3261
// 12.1.1, table 2).
func copiesRecordRoute(method sip.RequestMethod, code int) bool {
	return method != sip.REGISTER && code > 100 && code < 300
}
