package outgoing

import (
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/contact"
	"sipdialog.example/dialog/internal/sipheader"
	"sipdialog.example/dialog/internal/sipmsg"
)

func uri(t *testing.T, text string) sip.Uri {
	t.Helper()
	read, err := sipmsg.ToURI(text)
	require.NoError(t, err)
	return read
}

func defaults() Defaults {
	return Defaults{
		From: Named("Soft Phone/1.0", "sip"), Agent: "Soft Phone/1.0",
		Tag: func() string { return "tag" }, CallID: func() string { return "id" },
	}
}

// One row for each method: what a request that has nothing is completed with.
func TestARequestIsCompleted(t *testing.T) {
	for _, row := range []struct {
		method   sip.RequestMethod
		from, to string
		contacts int
	}{
		{sip.OPTIONS, "", "sip:b@h;lr", 0},
		{sip.REGISTER, "sip:me@pbx.example", "sip:me@pbx.example", 0},
		{sip.REGISTER, "sip:me@", "sip:me@192.0.2.1", 0},
		{sip.SUBSCRIBE, "", "sip:b@h;lr", 1},
		{sip.MESSAGE, "", "sip:b@h;lr", 0},
	} {
		req := sip.NewRequest(row.method, uri(t, "sip:b@h;lr?Subject=x"))
		if row.from == "sip:me@" {
			req.AppendHeader(&sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "me"}, Params: sip.NewParams()})
		} else if row.from != "" {
			req.AppendHeader(&sip.FromHeader{Address: uri(t, row.from), Params: sip.NewParams()})
		}
		defaults().Complete(req)
		FillHosts(req, "192.0.2.1", func(user string, secure bool) contact.Ours {
			return contact.Ours{User: user, Host: "192.0.2.1", IsSIPS: secure}
		})
		to := req.To().Address
		require.Equal(t, row.to, to.String(), row.method)
		tag, _ := req.From().Params.Get("tag")
		require.Equal(t, "tag", tag)
		require.NotEmpty(t, req.From().Address.Host)
		require.Equal(t, "id", req.CallID().Value())
		require.Equal(t, uint32(1), req.CSeq().SeqNo)
		require.Equal(t, row.contacts, sipheader.CountContacts(req))
		require.Equal(t, "Soft Phone/1.0", sipheader.Value(req, "User-Agent"))
	}
}

func TestTheRouteIsTheOneAskedForOrTheProxys(t *testing.T) {
	proxy, asked := uri(t, "sip:proxy.example"), []sip.Uri{uri(t, "sip:other.example;lr")}
	text := func(route []sip.Uri) (list []string) {
		for _, r := range route {
			list = append(list, r.String())
		}
		return list
	}
	require.Equal(t, []string{"sip:proxy.example;lr"}, text(Route(nil, &proxy)))
	require.Equal(t, []string{"sip:other.example;lr"}, text(Route(asked, &proxy)))
	require.Empty(t, Route([]sip.Uri{}, &proxy))
	require.Empty(t, Route(nil, nil))

	req := sip.NewRequest(sip.OPTIONS, uri(t, "sip:b@h"))
	hop := NextHop(req)
	require.Equal(t, "h", hop.Host)
	RouteBy(&proxy, req)
	RouteBy(&proxy, req)
	require.Len(t, sipheader.AllNamed(req, "Route"), 1)
	hop = NextHop(req)
	require.Equal(t, "proxy.example", hop.Host)
}

func TestFromAndToOfACall(t *testing.T) {
	to := To(uri(t, "sip:b@h;method=INVITE;transport=tcp;maddr=1.2.3.4;ttl=1;lr;user=phone?Subject=x"))
	require.Equal(t, "sip:b@h;user=phone", to.String())
	require.Equal(t, "SoftPhone", Named("Soft Phone/1.0", "sips").URI.User)
	require.Equal(t, "sips", Caller("A", sip.Uri{Host: "h"}, "sips").URI.Scheme)
	require.Equal(t, "anonymous.invalid", Anonymous().URI.Host)
}

func TestAHeaderThatEveryRequestHasCanBeRead(t *testing.T) {
	for _, row := range []struct{ name, value, refused string }{
		{"From", "<sip:a@h>", ""},
		{"From", "", `From ""`},
		{"CSeq", "5 OPTIONS", ""},
		{"CSeq", "5 REGISTER", `CSeq "5 REGISTER"`},
		{"X-Any", "?", ""},
	} {
		req := sip.NewRequest(sip.OPTIONS, uri(t, "sip:b@h"))
		req.AppendHeader(sip.NewHeader(row.name, row.value))
		req.AppendHeader(sip.NewHeader("Via", "left out"))
		own, err := Typed(req)
		if row.refused != "" {
			require.EqualError(t, err, row.refused)
			continue
		}
		require.NoError(t, err)
		require.Empty(t, sipheader.AllNamed(own, "Via"))
	}
}
