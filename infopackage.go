package dialog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// InfoPackageOf returns the Info Package of an INFO (RFC 6086 4.2), without its
// parameters; empty when it has none. A handler of INFO (OnRequest) gets INFOs without
// a package, and those of StackConfig.InfoPackages.
func InfoPackageOf(req *sip.Request) string {
	if req == nil {
		return ""
	}
	return packageOf(req)
}

func packageOf(msg message) string { return sipmsg.Bare(headerValue(msg, "Info-Package")) }

// SendInfoPackage sends an INFO of an Info Package (RFC 6086 4.2.1) and waits for its
// response; see Do. A response of 300 or more is a *ResponseError: after a 469 the peer
// accepts that package no more, and nothing ends. An INFO without a response ends the
// call, as that of SendInfo does.
//
// Errors: ErrInfoPackage (the peer has not listed it: see Info.PeerInfoPackages), and
// those of Do.
func (d *Dialog) SendInfoPackage(ctx context.Context, name string, body Body, headers ...Header) (err error) {
	defer naming("SendInfoPackage", &err)
	if err := checkToken("Info Package", sipmsg.Bare(name)); err != nil {
		return err
	}
	own := []Header{{"Info-Package", name}}
	if !isNilBody(body) {
		own = append(own, Header{"Content-Disposition", "Info-Package"})
	}
	return d.SendInfo(ctx, body, append(own, headers...)...)
}

// mayInformLocked refuses an INFO of a package that the peer does not accept (RFC 6086
// 4.2.1).
func (d *Dialog) mayInformLocked(req *sip.Request) error {
	if req.Method != sip.INFO || !hasHeader(req, "Info-Package") {
		return nil
	}
	if name := InfoPackageOf(req); !slices.Contains(d.currentLocked().peerPackages, name) {
		return fmt.Errorf("%w: %q", ErrInfoPackage, name)
	}
	return nil
}

// takesPackage reports whether an INFO belongs to no package, or to one of ours.
func (d *Dialog) takesPackage(req *sipmsg.Message) bool {
	return !hasHeader(req, "Info-Package") ||
		slices.Contains(d.config().InfoPackages, packageOf(req))
}

// recvInfo is the Recv-Info header: the packages that we accept.
func (c *StackConfig) recvInfo() sip.Header {
	return sip.NewHeader("Recv-Info", strings.Join(c.InfoPackages, ", "))
}

// askPackages adds Recv-Info to an INVITE, if InfoPackages is set (RFC 6086 5.2.3).
func (d *Dialog) askPackages(req *sip.Request) {
	if d.config().InfoPackages != nil {
		req.AppendHeader(d.config().recvInfo())
	}
}

// grantPackages adds Recv-Info to a response when the request has one, and only then
// (RFC 6086 5.2.3).
func (d *Dialog) grantPackages(req *sipmsg.Message, res *sip.Response) {
	if speaksOfPackages(req) {
		res.AppendHeader(d.config().recvInfo())
	}
}

func speaksOfPackages(req *sipmsg.Message) bool { return hasHeader(req, "Recv-Info") }

// maxPackages bounds the Info Packages of a peer that are kept.
const maxPackages = 100

// learnPackagesLocked sets the packages that the peer accepts, from a message that is
// accepted. A refused request changes nothing (RFC 6086 5.2.4), nor does one without
// Recv-Info.
func (s *dialogState) learnPackagesLocked(msg message) {
	if !hasHeader(msg, "Recv-Info") {
		return
	}
	list := listed(msg, "Recv-Info")
	s.peerPackages = make([]string, 0, min(len(list), maxPackages))
	for _, token := range list[:cap(s.peerPackages)] {
		s.peerPackages = append(s.peerPackages, sipmsg.Bare(token))
	}
}
