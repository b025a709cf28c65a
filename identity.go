package dialog

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
	"sipdialog.example/dialog/internal/sipuri"
)

// The functions of this file read the network's headers about the parties, in requests
// (Dialog.Request) and in responses (Dialog.Response). To send such headers, use the
// Headers of InviteOpts, ByeOpts and others, and WithHeader in responses.

// String returns the address in the form of a header: the name in quotes, the URI in
// angle brackets.
func (a Address) String() string {
	return sipheader.NameAddr{Display: a.DisplayName, URI: a.URI}.Text()
}

// AssertedIdentities returns the sender of a message as the network asserts it:
// P-Asserted-Identity (RFC 3325 9.1), one or two addresses, a SIP URI and a tel URI. It
// is reliable only if it comes from a trusted hop.
func AssertedIdentities(msg sip.Message) []Address {
	var list []Address
	for _, a := range sipheader.AddressesOf(msg, "P-Asserted-Identity") {
		list = append(list, addressOf(a.NameAddr))
	}
	return list
}

// PrivacyOf returns the values of Privacy (RFC 3323 4.2), such as "id" and
// "critical", in lower case.
func PrivacyOf(msg sip.Message) []string { return sipheader.Privacy(msg) }

// Diversion is one diversion of a call (RFC 5806 4).
type Diversion struct {
	// Address is the address of the diverting user.
	Address
	// Reason is the reason: "user-busy", "no-answer", "unconditional", …
	Reason string
	// Counter is the number of diversions of the entry, Limit the number that may
	// follow; zero if not given.
	Counter, Limit int
	// Privacy and Screen are the parameters of these names.
	Privacy, Screen string
}

// String returns the diversion in the form of a header.
func (d Diversion) String() string {
	value := d.Address.String()
	for _, param := range []struct{ name, value string }{
		{"reason", d.Reason}, {"counter", number(d.Counter)}, {"limit", number(d.Limit)},
		{"privacy", d.Privacy}, {"screen", d.Screen},
	} {
		value += sipheader.ParamText(param.name, param.value)
	}
	return value
}

// DiversionsOf returns the diversions of a call, the latest first (RFC 5806 4).
func DiversionsOf(msg sip.Message) []Diversion {
	var list []Diversion
	for _, a := range sipheader.AddressesOf(msg, "Diversion") {
		d := Diversion{Address: addressOf(a.NameAddr), Reason: a.Param("reason"), Privacy: a.Param("privacy"), Screen: a.Param("screen")}
		d.Counter, _ = strconv.Atoi(a.Param("counter"))
		d.Limit, _ = strconv.Atoi(a.Param("limit"))
		list = append(list, d)
	}
	return list
}

// HistoryEntry is one target that a request was sent to on its way (RFC 7044 5).
type HistoryEntry struct {
	// Address is the target; its URI's headers, such as Reason, are escaped in
	// it.
	Address
	// Index is its place in the tree of targets, such as "1.2.1".
	Index string
	// ChangedBy tells how the target was found: "rc" a contact of the same user, "mp"
	// another user, "np" unchanged; empty if not given. From is the index of the entry
	// from which it was found.
	ChangedBy, From string
}

// String returns the entry in the form of a header.
func (e HistoryEntry) String() string {
	value := e.Address.String() + sipheader.ParamText("index", e.Index)
	if e.ChangedBy != "" {
		value += sipheader.ParamText(e.ChangedBy, e.From)
	}
	return value
}

// Reasons returns the reasons for which another target replaced this one (RFC 7044 5),
// from its URI.
func (e HistoryEntry) Reasons() []Reason {
	var reasons []Reason
	for _, h := range e.URI.Headers {
		if strings.EqualFold(h.K, "Reason") {
			reasons = appendReason(reasons, sipuri.UnescapeAll(h.V))
		}
	}
	return reasons
}

// HistoryOf returns the targets of a request, in the order of the header (RFC 7044 5).
func HistoryOf(msg sip.Message) []HistoryEntry {
	var list []HistoryEntry
	for _, a := range sipheader.AddressesOf(msg, "History-Info") {
		e := HistoryEntry{Address: addressOf(a.NameAddr), Index: a.Param("index")}
		for _, how := range []string{"rc", "mp", "np"} {
			if _, found := sipuri.Param(a.Params, how); found {
				e.ChangedBy, e.From = how, a.Param(how)
			}
		}
		list = append(list, e)
	}
	return list
}

func number(n int) string {
	if n <= 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// Identity is the identity of the peer, as the messages of its side give it (RFC 3325,
// RFC 4916).
type Identity struct {
	// Address is the first address that the network asserts, in P-Asserted-Identity,
	// else the peer's From, or in a call of ours the To.
	Address
	// Asserted is true if the network asserts the Address. It is as trustworthy as the
	// hop that sent it: see StackConfig.IdentityFrom.
	Asserted bool
	// Others are further asserted addresses, such as a tel URI (RFC 3325 9.1).
	Others []Address
	// Privacy has the values of the Privacy header that came with the assertion (RFC
	// 3323 4.2): with "id" the identity must not be shown to others.
	Privacy []string
	// Source is the address that the assertion first came from.
	Source netip.AddrPort
}

// OnIdentity registers a callback for changes of the peer's identity: after a transfer
// or a call pickup by a PBX, for example. The change arrives in a re-INVITE or UPDATE,
// with or without a body, or in a response to ours or to the INVITE, by
// P-Asserted-Identity (RFC 3325) or another From (RFC 4916 4.4.2). A request has an effect
// only if it is accepted. For the identity in the first responses, register in
// InviteOpts.Setup.
//
// The callback does not get the identity at its registration: call [Dialog.Info] after
// the registration, so that no change is missed.
//
// It is called one at a time with the callbacks of OnStateChange and OnBody, with no
// lock held. If the identity changes several times while a callback runs, only the last
// change is reported, and none if the identity is the one reported before. A nil callback
// is ignored. OnIdentity never blocks.
func (d *Dialog) OnIdentity(callback func(Identity)) {
	if callback == nil {
		return
	}
	d.mutex.Lock()
	defer d.mutex.Unlock()
	c := d.registerLocked()
	c.identity = append(c.identity, &identityWatcher{callback: callback, told: d.currentLocked().peerIdentity})
}

// peerIdentity is the identity of the peer.
type peerIdentity struct {
	// remote is the To of our requests, without its tag.
	remote sipheader.Party
	// asserted is the identity that the network asserts, or nil. It is not written to.
	asserted *Identity
}

func (f peerIdentity) same(o peerIdentity) bool {
	return f.remote.NameAddr().Same(o.remote.NameAddr()) && (f.asserted == o.asserted || f.asserted.same(o.asserted))
}

// identity is a copy for the application.
func (f peerIdentity) identity() Identity {
	if f.asserted == nil {
		return Identity{Address: addressOf(f.remote.NameAddr())}
	}
	i := *f.asserted
	i.URI = *i.URI.Clone()
	i.Others, i.Privacy = slices.Clone(i.Others), slices.Clone(i.Privacy)
	for n := range i.Others {
		i.Others[n].URI = *i.Others[n].URI.Clone()
	}
	return i
}

// same reports whether two assertions name the same identity, whichever hop sent them.
func (i *Identity) same(o *Identity) bool {
	return i != nil && o != nil && i.Address.same(o.Address) &&
		slices.EqualFunc(i.Others, o.Others, Address.same) && slices.Equal(i.Privacy, o.Privacy)
}

func (a Address) same(b Address) bool {
	return sipheader.NameAddr{Display: a.DisplayName, URI: a.URI}.Same(sipheader.NameAddr{Display: b.DisplayName, URI: b.URI})
}

// identityWatcher is a callback of OnIdentity. The dialog's mutex guards the other fields:
// the identity that was reported to it, and whether it is about to be called.
type identityWatcher struct {
	callback func(Identity)
	told     peerIdentity
	queued   bool
}

// learnIdentityLocked sets the peer's identity from an accepted request or a response.
func (s *dialogState) learnIdentityLocked(msg sipheader.Message) {
	msg = learnable(msg)
	if m, isText := msg.(*sipmsg.Message); !isText || m.IsRequest() {
		s.learnFromLocked(sipheader.NameAddrOf(msg, "From"))
	}
	if now := s.d.config().assertedIn(msg); now != nil && !now.same(s.asserted) {
		s.asserted = now
	}
}

// learnFromLocked sets the peer's identity from the From of a request. Another From is
// the To of later requests of ours too (RFC 4916 4.4.2), and ends the assertion about
// the one before. A missing display name is no change.
func (s *dialogState) learnFromLocked(from sipheader.NameAddr) {
	moved := !sipuri.SameOfAny(from.URI, s.remote.NameAddr().URI)
	if sipuri.LacksHost(from.URI) || !moved && from.Display == "" {
		return
	}
	if moved {
		s.asserted = nil
	}
	s.remote = from.Party()
}

// tellIdentityLocked reports a change, in the current dialog.
func (d *Dialog) tellIdentityLocked() {
	for _, w := range d.callbacksLocked().identity {
		if !w.queued && !w.told.same(d.currentLocked().peerIdentity) {
			w.queued = true
			d.mailbox.Push(func() { d.tellIdentity(w) })
		}
	}
}

// tellIdentity calls a watcher, unless the change was undone meanwhile.
func (d *Dialog) tellIdentity(w *identityWatcher) {
	d.mutex.Lock()
	now := d.currentLocked().peerIdentity
	changed := !w.told.same(now)
	w.queued, w.told = false, now
	d.mutex.Unlock()
	if changed {
		w.callback(now.identity())
	}
}

// maxIdentities bounds the asserted identities that are kept: two are allowed (RFC 3325
// 9.1).
const maxIdentities = 8

// assertedIn returns the identity that a message asserts, or nil: if there is none, or
// its sender is not believed.
func (c *StackConfig) assertedIn(msg sipheader.Message) *Identity {
	if !sipheader.Has(msg, "P-Asserted-Identity") {
		return nil
	}
	full := sipheader.Structs(msg)
	list := AssertedIdentities(full)
	if len(list) == 0 || !c.believes(sourceOf(full.Source())) {
		return nil
	}
	source, _ := netip.ParseAddrPort(full.Source())
	return &Identity{Address: list[0], Asserted: true, Others: slices.Clone(list[1:min(len(list), maxIdentities)]), Privacy: PrivacyOf(full), Source: source}
}

func (c *StackConfig) believes(source netip.Addr) bool {
	source = source.WithZone("")
	return c.IdentityFrom == nil || slices.ContainsFunc(c.IdentityFrom, func(p netip.Prefix) bool { return p.Contains(source) })
}
