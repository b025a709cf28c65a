package dialog_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"log"
	"net/netip"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog"
)

// The exported names that applications written for the package this one
// replaces use. It is enough that these compile.
var (
	_ func(string, []byte) *dialog.BodyImpl                        = dialog.NewBody
	_ func(*dialog.StackConfig) (*dialog.Stack, error)             = dialog.NewStack
	_ func() *dialog.TransportConfig                               = dialog.DefaultTransportConfig
	_ func(string) (*dialog.ReplacesInfo, error)                   = dialog.ParseReplacesHeader
	_ func() string                                                = dialog.TagGen
	_ func(*dialog.Dialog, dialog.TxType) *dialog.Transaction      = dialog.NewTransaction
	_ dialog.ResponseOpt                                           = func(*sip.Response) {}
	_ dialog.IDialog                                               = (*dialog.Dialog)(nil)
	_ dialog.IDialog                                               = (*mockDialog)(nil)
	_ dialog.IStack                                                = (*dialog.Stack)(nil)
	_ dialog.IStack                                                = (*mockStack)(nil)
	_ dialog.Body                                                  = (*dialog.BodyImpl)(nil)
	_ dialog.Body                                                  = (*dialog.SimpleBody)(nil)
	_ dialog.TransactionPool                                       = dialog.TransactionPool{}
	_ map[dialog.DialogKey]bool                                    = map[dialog.DialogKey]bool{{CallID: "", LocalTag: "", RemoteTag: ""}: true}
	_ func(*dialog.Dialog) dialog.DialogKey                        = (*dialog.Dialog).Key
	_ func(*dialog.Dialog) dialog.DialogState                      = (*dialog.Dialog).State
	_ func(*dialog.Dialog) bool                                    = (*dialog.Dialog).IsUAC
	_ func(*dialog.Dialog) bool                                    = (*dialog.Dialog).IsUAS
	_ func(*dialog.Dialog, context.Context) error                  = (*dialog.Dialog).WaitAnswer
	_ func(*dialog.Dialog, context.Context, string) error          = (*dialog.Dialog).Bye
	_ func(*dialog.Dialog, func(dialog.DialogState))               = (*dialog.Dialog).OnStateChange
	_ func(*dialog.Dialog, func(dialog.Body))                      = (*dialog.Dialog).OnBody
	_ func(*dialog.Dialog) error                                   = (*dialog.Dialog).Close
	_ func(*dialog.Dialog) []*dialog.ReferSubscription             = (*dialog.Dialog).GetAllReferSubscriptions
	_ func(*dialog.Dialog, context.Context, int, string) error     = (*dialog.Dialog).Reject
	_ func(*dialog.Stack, context.Context) error                   = (*dialog.Stack).Start
	_ func(*dialog.Stack, context.Context) error                   = (*dialog.Stack).Shutdown
	_ func(*dialog.Stack, dialog.DialogKey) (*dialog.Dialog, bool) = (*dialog.Stack).DialogByKey
	_ func(*dialog.Stack, func(dialog.IDialog))                    = (*dialog.Stack).OnIncomingDialog

	_ func(*dialog.Dialog, context.Context, ...dialog.ResponseOpt) error                               = (*dialog.Dialog).Accept
	_ func(*dialog.Dialog, context.Context, sip.Uri, dialog.ReferOpts) error                           = (*dialog.Dialog).Refer
	_ func(*dialog.Dialog, context.Context, dialog.IDialog, dialog.ReferOpts) error                    = (*dialog.Dialog).ReferReplace
	_ func(*dialog.Dialog, context.Context) (*dialog.ReferSubscription, error)                         = (*dialog.Dialog).WaitRefer
	_ func(*dialog.Dialog, context.Context, dialog.InviteOpts) error                                   = (*dialog.Dialog).ReInvite
	_ func(*dialog.Dialog, context.Context, sip.Uri, *dialog.ReferOpts) error                          = (*dialog.Dialog).SendRefer
	_ func(*dialog.Dialog, context.Context, sip.Uri, dialog.IDialog, *dialog.ReferOpts) error          = (*dialog.Dialog).SendReferWithReplaces
	_ func(*dialog.Dialog, *sip.Request, sip.Uri, *dialog.ReplacesInfo) error                          = (*dialog.Dialog).HandleIncomingRefer
	_ func(*dialog.Dialog, string) (*dialog.ReferSubscription, bool)                                   = (*dialog.Dialog).GetReferSubscription
	_ func(*dialog.ReferSubscription, context.Context, int, string) error                              = (*dialog.ReferSubscription).SendNotify
	_ func(*dialog.ReplacesInfo) string                                                                = (*dialog.ReplacesInfo).BuildReplacesHeader
	_ func(*dialog.Stack, context.Context, sip.Uri, dialog.InviteOpts) (dialog.IDialog, error)         = (*dialog.Stack).NewInvite
	_ func(*dialog.Stack, func(dialog dialog.IDialog, referTo sip.Uri, replaces *dialog.ReplacesInfo)) = (*dialog.Stack).OnIncomingRefer
	_ func(*dialog.TransportConfig) error                                                              = (*dialog.TransportConfig).Validate
	_ func(*dialog.TransportConfig) string                                                             = (*dialog.TransportConfig).GetListenAddress
	_ func(*dialog.TransportConfig) string                                                             = (*dialog.TransportConfig).GetPublicAddress
	_ func(*dialog.TransportConfig, string) string                                                     = (*dialog.TransportConfig).GetSIPURI
	_ func(*dialog.BodyImpl) *dialog.BodyImpl                                                          = (*dialog.BodyImpl).Copy
	_                                                                                                  = dialog.InviteOpts{Body: dialog.NewBody("", nil)}
	_                                                                                                  = dialog.ReferOpts{ReferSub: new(string), NoReferSub: true, Headers: map[string]string{}}
	_                                                                                                  = dialog.ReferSubscription{ID: "2 REFER"}
	_                                                                                                  = dialog.ReplacesInfo{CallID: "", FromTag: "", ToTag: "", EarlyOnly: false}
	_                                                                                                  = dialog.StackConfig{Transport: nil, UserAgent: "", TxTimeout: time.Second, MaxDialogs: 1, Logger: log.Default()}
	_                                                                                                  = dialog.TransportConfig{Protocol: "", Address: "", Port: 0, PublicAddress: "", PublicPort: 0, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	_                                                                                                  = dialog.StackCallbacks{OnIncomingDialog: func(dialog.IDialog) {}, OnIncomingRefer: func(dialog.IDialog, sip.Uri, *dialog.ReplacesInfo) {}}
)

// Flows, as registrars and telephones use them.
var (
	_ func(context.Context) *dialog.Flow                                                                     = dialog.FlowFrom
	_ func(*dialog.Dialog) *dialog.Flow                                                                      = (*dialog.Dialog).Flow
	_ func(*dialog.Stack, context.Context, *sip.Request, dialog.DoOpts) (*sip.Response, *dialog.Flow, error) = (*dialog.Stack).DoWith
	_ func(*dialog.Flow, func(error)) func()                                                                 = (*dialog.Flow).OnLost
	_ func(*dialog.Flow) func()                                                                              = (*dialog.Flow).Hold
	_ func(*dialog.Flow) <-chan struct{}                                                                     = (*dialog.Flow).Done
	_ func(*dialog.Flow) error                                                                               = (*dialog.Flow).Err
	_ func(*dialog.Flow) netip.AddrPort                                                                      = (*dialog.Flow).Remote
	_                                                                                                        = dialog.InviteOpts{Flow: &dialog.Flow{}}
	_                                                                                                        = dialog.ReferOpts{Flow: &dialog.Flow{}}
	_                                                                                                        = dialog.ErrFlowLost
)

// mockDialog is an application's fake: it breaks when IDialog gains a method.
type mockDialog struct{}

func (*mockDialog) Key() dialog.DialogKey                               { return dialog.DialogKey{} }
func (*mockDialog) State() dialog.DialogState                           { return dialog.DialogStateInit }
func (*mockDialog) Accept(context.Context, ...dialog.ResponseOpt) error { return nil }
func (*mockDialog) Reject(context.Context, int, string) error           { return nil }
func (*mockDialog) Refer(context.Context, sip.Uri, dialog.ReferOpts) error {
	return nil
}
func (*mockDialog) ReferReplace(context.Context, dialog.IDialog, dialog.ReferOpts) error {
	return nil
}
func (*mockDialog) WaitRefer(context.Context) (*dialog.ReferSubscription, error) {
	return nil, nil
}
func (*mockDialog) Bye(context.Context, string) error      { return nil }
func (*mockDialog) OnStateChange(func(dialog.DialogState)) {}
func (*mockDialog) OnBody(func(dialog.Body))               {}
func (*mockDialog) Close() error                           { return nil }

// mockStack likewise.
type mockStack struct{}

func (*mockStack) Start(context.Context) error    { return nil }
func (*mockStack) Shutdown(context.Context) error { return nil }
func (*mockStack) NewInvite(context.Context, sip.Uri, dialog.InviteOpts) (dialog.IDialog, error) {
	return nil, nil
}
func (*mockStack) DialogByKey(dialog.DialogKey) (*dialog.Dialog, bool) { return nil, false }
func (*mockStack) OnIncomingDialog(func(dialog.IDialog))               {}

func TestStatesHaveTheirNumbersAndNames(t *testing.T) {
	for i, name := range []string{"Init", "Trying", "Ringing", "Established", "Terminated"} {
		require.Equal(t, name, dialog.DialogState(i).String())
	}
	require.Equal(t, []dialog.DialogState{0, 1, 2, 3, 4}, []dialog.DialogState{
		dialog.DialogStateInit, dialog.DialogStateTrying, dialog.DialogStateRinging,
		dialog.DialogStateEstablished, dialog.DialogStateTerminated,
	})
	require.Equal(t, "Unknown", dialog.DialogState(5).String())
	require.Equal(t, "Unknown", dialog.DialogState(-1).String())
}

func TestDeprecatedShellsAnswer(t *testing.T) {
	require.NotNil(t, dialog.NewTransaction(nil, dialog.TxTypeInviteClient))
	require.NotNil(t, dialog.NewTransaction(new(dialog.Dialog), dialog.TxType(99)))
	states := []dialog.TxState{
		dialog.TxCalling, dialog.TxProceeding, dialog.TxCompleted, dialog.TxTerminated, dialog.TxConfirmed, dialog.TxTrying,
	}
	for i, name := range []string{"Calling", "Proceeding", "Completed", "Terminated", "Confirmed", "Trying"} {
		require.EqualValues(t, i, states[i])
		require.Equal(t, name, states[i].String())
	}
	types := []dialog.TxType{
		dialog.TxTypeInviteClient, dialog.TxTypeInviteServer, dialog.TxTypeNonInviteClient, dialog.TxTypeNonInviteServer,
	}
	for i, name := range []string{"InviteClient", "InviteServer", "NonInviteClient", "NonInviteServer"} {
		require.EqualValues(t, i, types[i])
		require.Equal(t, name, types[i].String())
	}
	require.Equal(t, "Unknown", dialog.TxState(6).String())
	require.Equal(t, "Unknown", dialog.TxType(-1).String())
}

func TestBodyAndItsCopyShareNothing(t *testing.T) {
	body := dialog.NewBody("application/sdp", []byte("v=0\r\n"))
	require.Equal(t, "application/sdp", body.ContentType())
	require.Equal(t, "v=0\r\n", string(body.Data()))
	copied := body.Copy()
	require.Equal(t, body.ContentType(), copied.ContentType())
	require.True(t, bytes.Equal(body.Data(), copied.Data()))
	copied.Data()[0] = 'x'
	require.Equal(t, "v=0\r\n", string(body.Data()))
	require.Empty(t, dialog.NewBody("", nil).Copy().Data())
	var none *dialog.BodyImpl
	require.Nil(t, none.Copy())
	require.Empty(t, none.ContentType())
	require.Nil(t, none.Data())
}

func TestTransportConfigAddresses(t *testing.T) {
	for _, c := range []struct {
		config              dialog.TransportConfig
		listen, public, uri string
	}{
		{dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060}, "0.0.0.0:5060", "127.0.0.1:5060", "sip:bob@127.0.0.1"},
		{dialog.TransportConfig{Protocol: "udp", Address: "192.0.2.1", Port: 5070}, "192.0.2.1:5070", "192.0.2.1:5070", "sip:bob@192.0.2.1:5070"},
		{dialog.TransportConfig{Protocol: "tcp", Address: "192.0.2.1", Port: 5060}, "192.0.2.1:5060", "192.0.2.1:5060", "sip:bob@192.0.2.1"},
		{dialog.TransportConfig{Protocol: "tcp", Address: "192.0.2.1", Port: 5061}, "192.0.2.1:5061", "192.0.2.1:5061", "sip:bob@192.0.2.1:5061"},
		{dialog.TransportConfig{Protocol: "tls", Address: "192.0.2.1", Port: 5061}, "192.0.2.1:5061", "192.0.2.1:5061", "sips:bob@192.0.2.1"},
		{dialog.TransportConfig{Protocol: "tls", Address: "192.0.2.1", Port: 5060}, "192.0.2.1:5060", "192.0.2.1:5060", "sips:bob@192.0.2.1:5060"},
		{dialog.TransportConfig{Protocol: "ws", Address: "192.0.2.1", Port: 80}, "192.0.2.1:80", "192.0.2.1:80", "sip:bob@192.0.2.1:80"},
		{dialog.TransportConfig{Protocol: "ws", Address: "192.0.2.1", Port: 5060}, "192.0.2.1:5060", "192.0.2.1:5060", "sip:bob@192.0.2.1:5060"},
		{dialog.TransportConfig{Protocol: "wss", Address: "192.0.2.1", Port: 443}, "192.0.2.1:443", "192.0.2.1:443", "sips:bob@192.0.2.1:443"},
		{dialog.TransportConfig{Protocol: "wss", Address: "192.0.2.1", Port: 5061}, "192.0.2.1:5061", "192.0.2.1:5061", "sips:bob@192.0.2.1"},
		{dialog.TransportConfig{Protocol: "UDP", Address: "::1", Port: 5060}, "[::1]:5060", "[::1]:5060", "sip:bob@[::1]"},
		{dialog.TransportConfig{Protocol: "udp", Address: "[2001:db8::1]", Port: 5070}, "[2001:db8::1]:5070", "[2001:db8::1]:5070", "sip:bob@[2001:db8::1]:5070"},
		{dialog.TransportConfig{Protocol: "udp", Address: "::", Port: 5060}, "[::]:5060", "[::1]:5060", "sip:bob@[::1]"},
		{dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060, PublicAddress: "203.0.113.9", PublicPort: 6060}, "0.0.0.0:5060", "203.0.113.9:6060", "sip:bob@203.0.113.9:6060"},
		{dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060, PublicAddress: "203.0.113.9"}, "0.0.0.0:5060", "203.0.113.9:5060", "sip:bob@203.0.113.9"},
		{dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060, PublicAddress: "2001:db8::9"}, "0.0.0.0:5060", "[2001:db8::9]:5060", "sip:bob@[2001:db8::9]"},
	} {
		require.Equal(t, c.listen, c.config.GetListenAddress(), "%+v", c.config)
		require.Equal(t, c.public, c.config.GetPublicAddress(), "%+v", c.config)
		require.Equal(t, c.uri, c.config.GetSIPURI("bob"), "%+v", c.config)
		var uri sip.Uri
		require.NoError(t, sip.ParseUri(c.uri, &uri))
	}
	require.Equal(t, "sip:127.0.0.1", dialog.DefaultTransportConfig().GetSIPURI(""))
	var none *dialog.TransportConfig
	require.Empty(t, none.GetListenAddress()+none.GetPublicAddress()+none.GetSIPURI("bob"))
	require.ErrorIs(t, none.Validate(), dialog.ErrInvalidArgument)
}

func TestTransportConfigValidates(t *testing.T) {
	require.Equal(t, &dialog.TransportConfig{Protocol: "udp", Address: "0.0.0.0", Port: 5060}, dialog.DefaultTransportConfig())
	require.NoError(t, dialog.DefaultTransportConfig().Validate())
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, c := range []dialog.TransportConfig{
		{Protocol: "udp"}, {Protocol: "tcp", Port: 65535}, {Protocol: "ws"}, {Protocol: "UDP"},
		{Protocol: "tls", TLSConfig: secure}, {Protocol: "wss", TLSConfig: secure},
	} {
		require.NoError(t, c.Validate(), c.Protocol)
		_, err := dialog.NewStack(&dialog.StackConfig{Transport: &c})
		require.NoError(t, err)
	}
	for _, c := range []dialog.TransportConfig{
		{}, {Protocol: "sctp"}, {Protocol: "tls"}, {Protocol: "wss"}, {Protocol: "udp", Port: -1},
		{Protocol: "udp", Port: 65536}, {Protocol: "udp", PublicPort: 70000},
	} {
		require.ErrorIs(t, c.Validate(), dialog.ErrInvalidArgument, "%+v", c)
		_, err := dialog.NewStack(&dialog.StackConfig{Transport: &c})
		require.ErrorIs(t, err, dialog.ErrInvalidArgument)
	}
}

func TestTransportLayersAreNamedAsInVia(t *testing.T) {
	require.Equal(t, []dialog.TransportLayer{"UDP", "TCP", "TLS", "WS"}, []dialog.TransportLayer{
		dialog.TransportUDP, dialog.TransportTCP, dialog.TransportTLS, dialog.TransportWS,
	})
}

func TestReplacesHeaderRoundTrip(t *testing.T) {
	for value, info := range map[string]dialog.ReplacesInfo{
		"id;from-tag=F;to-tag=T":                     {CallID: "id", FromTag: "F", ToTag: "T"},
		"id;from-tag=F;to-tag=T;early-only":          {CallID: "id", FromTag: "F", ToTag: "T", EarlyOnly: true},
		"a%b@host;from-tag=1;to-tag=2":               {CallID: "a%b@host", FromTag: "1", ToTag: "2"},
		"98732@sip.example.com;from-tag=r3;to-tag=f": {CallID: "98732@sip.example.com", FromTag: "r3", ToTag: "f"},
	} {
		require.Equal(t, value, info.BuildReplacesHeader())
		parsed, err := dialog.ParseReplacesHeader(value)
		require.NoError(t, err)
		require.Equal(t, info, *parsed)
	}
	for value, info := range map[string]dialog.ReplacesInfo{
		"id%3Bfrom-tag%3DF%3Bto-tag%3DT":                                {CallID: "id", FromTag: "F", ToTag: "T"},
		"12345%40192.168.118.3%3Bto-tag%3D12345%3Bfrom-tag%3D5FFE-3994": {CallID: "12345@192.168.118.3", FromTag: "5FFE-3994", ToTag: "12345"},
		"id%3Bto-tag%3DT%3Bfrom-tag%3DF%3Bearly-only":                   {CallID: "id", FromTag: "F", ToTag: "T", EarlyOnly: true},
		" id ; To-Tag = T ; FROM-TAG=F ; unknown=1 ":                    {CallID: "id", FromTag: "F", ToTag: "T"},
	} {
		parsed, err := dialog.ParseReplacesHeader(value)
		require.NoError(t, err, value)
		require.Equal(t, info, *parsed, value)
	}
	for _, value := range []string{
		"", "id", ";from-tag=F;to-tag=T", "id;from-tag=F", "id;to-tag=T", "id;from-tag=;to-tag=T", "id%3",
		"id;from-tag=F;to-tag=T;to-tag=U", "id;from-tag=F;from-tag=F;to-tag=T",
	} {
		_, err := dialog.ParseReplacesHeader(value)
		require.ErrorIs(t, err, dialog.ErrMalformed, "%q", value)
	}
	var none *dialog.ReplacesInfo
	require.Empty(t, none.BuildReplacesHeader())
}

func TestStackWithoutConfigurationHasTheDefaults(t *testing.T) {
	s, err := dialog.NewStack(nil)
	require.NoError(t, err)
	var i dialog.IStack = s
	_, err = i.NewInvite(context.Background(), sip.Uri{Scheme: "sip", Host: "127.0.0.1"}, dialog.InviteOpts{})
	require.ErrorIs(t, err, dialog.ErrNotStarted)
	_, ok := i.DialogByKey(dialog.DialogKey{CallID: "id"})
	require.False(t, ok)
	i.OnIncomingDialog(func(dialog.IDialog) {})
	require.NoError(t, i.Shutdown(context.Background()))
	require.ErrorIs(t, i.Start(context.Background()), dialog.ErrShutdown)
}
