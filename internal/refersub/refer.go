package refersub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/dialogname"
	"sipdialog.example/dialog/internal/draft"
	"sipdialog.example/dialog/internal/referredby"
	"sipdialog.example/dialog/internal/sipheader"
)

const (
	// tagNoSub is the option tag of RFC 7614 6, tagTargetDialog that of RFC 4538 8.
	tagNoSub        = "nosub"
	tagTargetDialog = "tdialog"
)

// Refer is what only a REFER of ours has (RFC 3515 2.4.1, 3892 3, 4488 4, 4538 3, 7614
// 5.1).
type Refer struct {
	To sip.Uri
	// Supported is the Supported header.
	Supported sip.Header
	// ReferSub is the value of Refer-Sub, or nil. NoSub requires that there is no
	// subscription.
	ReferSub *string
	NoSub    bool
	// TargetDialog, unless nil, names the call that the REFER belongs to.
	TargetDialog *dialogname.TargetDialog
	// By is the value of Referred-By, unless the application's Headers have one; empty for
	// none.
	By      string
	Headers map[string]string
}

// Write adds the headers of the REFER.
func (r Refer) Write(req *draft.Request) {
	req.Add("Refer-To", "<"+r.To.String()+">")
	req.AddHeader(r.Supported)
	if r.ReferSub != nil {
		req.Add("Refer-Sub", *r.ReferSub)
	}
	var required []string
	if r.NoSub {
		required = append(required, tagNoSub)
	}
	if r.TargetDialog != nil {
		required = append(required, tagTargetDialog)
		req.Add("Target-Dialog", r.TargetDialog.String())
	}
	if len(required) > 0 {
		req.Add("Require", strings.Join(required, ", "))
	}
	by := r.By
	for name, value := range r.Headers {
		if strings.EqualFold(name, "Referred-By") || strings.EqualFold(name, "b") {
			by = ""
		}
		req.Add(name, value)
	}
	if by != "" {
		req.Add("Referred-By", by)
	}
}

// Arrived is a REFER of the peer.
type Arrived struct {
	// By is the value of Referred-By, Token the proof in the body (RFC 3892 4).
	By    string
	Token []byte
	// Silent is true when the peer wants no subscription: Refer-Sub: false (RFC 4488 4),
	// or Require: nosub (RFC 7614 5.3).
	Silent bool
}

// ReadRefer reads a REFER, but for its target.
func ReadRefer(req sipheader.Message) Arrived {
	by := sipheader.Value(req, "Referred-By")
	return Arrived{
		By: by, Token: referredby.Token(by, sipheader.Value(req, "Content-Type"), req.Body()),
		Silent: IsFalse(sipheader.Value(req, "Refer-Sub")) || RequiresNoSub(req),
	}
}

// RequiresNoSub reports whether a REFER requires that there is no subscription.
func RequiresNoSub(req sipheader.Message) bool { return sipheader.Lists(req, "Require", tagNoSub) }

// ReferTo reads the one Refer-To of a REFER (RFC 3515 2.1). A second Referred-By makes it
// malformed too (RFC 3892 2.1).
func ReferTo(req sipheader.Message) (sip.Uri, error) {
	headers, list := sipheader.AllNamed(req, "Refer-To"), sipheader.AddressesOf(req, "Refer-To")
	switch {
	case len(headers) != 1:
		return sip.Uri{}, fmt.Errorf("%d Refer-To headers", len(headers))
	case len(list) != 1:
		return sip.Uri{}, fmt.Errorf("Refer-To %q", headers[0].Value())
	case len(sipheader.AllNamed(req, "Referred-By")) > 1:
		return sip.Uri{}, errors.New("several Referred-By headers")
	}
	return list[0].URI, nil
}
