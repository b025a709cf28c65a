package dialog

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipmsg"
)

// InfoPackageOf returns the Info Package that an INFO belongs to (RFC 6086 4.2),
// without its parameters; empty when it belongs to none. A handler of INFO
// (OnRequest) sees INFOs without a package, and of those that
// StackConfig.InfoPackages lists.
func InfoPackageOf(req *sip.Request) string {
	if req == nil {
		return ""
	}
	return packageOf(req)
}

func packageOf(msg message) string { return sipmsg.Bare(headerValue(msg, "Info-Package")) }

// SendInfoPackage sends an INFO of an Info Package (RFC 6086 4.2.1) and waits for
// its answer; see Do. An answer of 300 or more is a *ResponseError: a 469 says that
// the peer takes that package no more, and ends nothing. No answer ends the call, as
// SendInfo has it.
//
// Errors: ErrInfoPackage (the peer has not listed it: see Info.PeerInfoPackages),
// and those of Do.
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

// mayInformLocked refuses an INFO of a package that the peer does not take (RFC
// 6086 4.2.1).
func (d *Dialog) mayInformLocked(req *sip.Request) error {
	if req.Method != sip.INFO || !hasHeader(req, "Info-Package") {
		return nil
	}
	if name := InfoPackageOf(req); !slices.Contains(d.peerPackages, name) {
		return fmt.Errorf("%w: %q", ErrInfoPackage, name)
	}
	return nil
}

// takesPackage reports whether an INFO belongs to no package, or to one of ours.
func (d *Dialog) takesPackage(req *sipmsg.Message) bool {
	return !hasHeader(req, "Info-Package") ||
		slices.Contains(d.config().InfoPackages, packageOf(req))
}

// recvInfo is the Recv-Info header: what we take.
func (c *StackConfig) recvInfo() sip.Header {
	return sip.NewHeader("Recv-Info", strings.Join(c.InfoPackages, ", "))
}

// askPackages adds to an INVITE what we take, if packages are spoken of at all
// (RFC 6086 5.2.3).
func (d *Dialog) askPackages(req *sip.Request) {
	if d.config().InfoPackages != nil {
		req.AppendHeader(d.config().recvInfo())
	}
}

// grantPackages adds it to a response: when the request has said what the peer
// takes, and only then (RFC 6086 5.2.3).
func (d *Dialog) grantPackages(req *sipmsg.Message, res *sip.Response) {
	if speaksOfPackages(req) {
		res.AppendHeader(d.config().recvInfo())
	}
}

func speaksOfPackages(req *sipmsg.Message) bool { return hasHeader(req, "Recv-Info") }

// maxPackages bounds the Info Packages of a peer that are kept.
const maxPackages = 100

// learnPackagesLocked takes over what the peer takes, from a message that is
// accepted: one that is refused changes nothing (RFC 6086 5.2.4), nor does one
// that says nothing.
func (d *Dialog) learnPackagesLocked(msg message) {
	if !hasHeader(msg, "Recv-Info") {
		return
	}
	list := listed(msg, "Recv-Info")
	d.peerPackages = make([]string, 0, min(len(list), maxPackages))
	for _, token := range list[:cap(d.peerPackages)] {
		d.peerPackages = append(d.peerPackages, sipmsg.Bare(token))
	}
}
