package invite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// peer is an early dialog.
type peer struct{ Early }

type peers = Forks[*peer, string]

func show(effects []Effect[*peer]) string {
	var text []string
	for _, e := range effects {
		text = append(text, [...]string{"select ", "end ", "close "}[e.Kind]+e.Early.Tag)
	}
	return strings.Join(text, ", ")
}

// ringing are forks of which each has sent a 180.
func ringing(tags ...string) *peers {
	s := new(peers)
	for _, tag := range tags {
		e := &peer{Early{Tag: tag}}
		s.Add(e)
		e.Hear(180, false)
		s.Rang(e, nil)
	}
	return s
}

// RFC 3261 12.1.2, 13.2.2.1, RFC 6228 4: the early dialog of a provisional response, in each
// state of that.
func TestTheEarlyDialogOfAProvisionalResponse(t *testing.T) {
	r := func(tag string, status int, reliable bool) Response { return Response{tag, status, reliable} }
	for name, row := range map[string]struct {
		make func() *peers
		res  Response
		want Belonging
	}{
		"a new tag":                              {func() *peers { return ringing() }, r("a", 180, false), Begins},
		"another tag":                            {func() *peers { return ringing("a") }, r("b", 183, true), Begins},
		"the same tag":                           {func() *peers { return ringing("a") }, r("a", 180, false), Known},
		"no tag":                                 {func() *peers { return ringing("a") }, r("", 180, false), Outside},
		"199 of nobody":                          {func() *peers { return ringing("a") }, r("b", 199, false), Nowhere},
		"199 of nobody, reliable: it is PRACKed": {func() *peers { return ringing("a") }, r("b", 199, true), Begins},
		"199 without a tag":                      {func() *peers { return ringing() }, r("", 199, true), Nowhere},
		"of an early dialog that has ended":      {func() *peers { return after(ringing("a", "b"), "end a") }, r("a", 180, false), Nowhere},
		"likewise, reliable: it is PRACKed":      {func() *peers { return after(ringing("a", "b"), "end a") }, r("a", 180, true), Known},
		"of one that is closed":                  {func() *peers { return after(ringing("a", "b"), "close a") }, r("a", 180, true), Nowhere},
		"after the 2xx":                          {func() *peers { return after(ringing("a"), "win a") }, r("a", 180, true), Nowhere},
		"of another fork after the 2xx":          {func() *peers { return after(ringing("a", "b"), "win a") }, r("b", 180, true), Nowhere},
		"one too many":                           {full, r("x", 180, true), Outside},
		"one too many, 199":                      {full, r("x", 199, true), Nowhere},
		"the last there is room for":             {full, r("t63", 180, true), Known},
		"of the INVITE that was refused before":  {func() *peers { return after(ringing("a"), "restart") }, r("a", 180, false), Begins},
	} {
		t.Run(name, func(t *testing.T) {
			s := row.make()
			e, got := s.Provisional(row.res)
			require.Equal(t, row.want, got)
			require.Equal(t, got == Known, e != nil && e.Tag == row.res.Tag)
		})
	}
}

// RFC 3261 12.2.2: the early dialog of a request of the peer, in each state of that.
func TestTheEarlyDialogOfARequest(t *testing.T) {
	for name, row := range map[string]struct {
		make         func() *peers
		tag          string
		request, bye Belonging
	}{
		"a tag that rings":                       {func() *peers { return ringing("a") }, "a", Known, Known},
		"a request overtakes the response":       {func() *peers { return ringing("a") }, "b", Begins, Begins},
		"one that has ended: it may still leave": {func() *peers { return after(ringing("a", "b"), "end a") }, "a", Nowhere, Known},
		"one that is closed":                     {func() *peers { return after(ringing("a", "b"), "close a") }, "a", Nowhere, Nowhere},
		"one of the INVITE refused before":       {func() *peers { return after(ringing("a"), "restart") }, "a", Nowhere, Nowhere},
		"one too many":                           {full, "x", Nowhere, Nowhere},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := row.make().Request(row.tag, false)
			require.Equal(t, row.request, got)
			_, got = row.make().Request(row.tag, true)
			require.Equal(t, row.bye, got)
		})
	}
}

// RFC 3261 13.2.2.4: the first 2xx makes the call, its repetition gets its ACK again, all
// others are released.
func TestWhich2xxItIs(t *testing.T) {
	released := func() *peers {
		s := ringing("a", "b")
		s.Release("b", "call of b")
		return s
	}
	for name, row := range map[string]struct {
		make    func() *peers
		tag     string
		cleared bool
		want    Success
	}{
		"of one that rings":                   {func() *peers { return ringing("a") }, "a", false, First},
		"of one that did not ring":            {func() *peers { return ringing("a") }, "b", false, First},
		"of one without a tag":                {func() *peers { return ringing() }, "", false, First},
		"again":                               {func() *peers { return after(ringing("a"), "win a") }, "a", false, Repeated},
		"again, and the call is over":         {func() *peers { return after(ringing("a"), "win a") }, "a", true, Repeated},
		"of another":                          {func() *peers { return after(ringing("a", "b"), "win a") }, "b", false, Further},
		"of one nobody knows":                 {func() *peers { return after(ringing("a"), "win a") }, "x", false, Further},
		"of one that was released before":     {released, "b", false, Further},
		"of one beside it":                    {released, "a", false, First},
		"when the call is over":               {func() *peers { return ringing("a") }, "a", true, Further},
		"after a 199, which may be withdrawn": {func() *peers { return after(ringing("a", "b"), "end a") }, "a", false, First},
		"of one that has hung up":             {func() *peers { return after(ringing("a", "b"), "close a") }, "a", false, HungUp},
		"of one with one peer":                {func() *peers { s := WonBy[*peer, string]("a"); return &s }, "a", false, Repeated},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.want, row.make().Success(row.tag, row.cleared))
		})
	}
}

// The effects on each early dialog, and their order.
func TestEffectsOnEarlyDialogs(t *testing.T) {
	for name, row := range map[string]struct {
		forks             []string
		inputs            string
		effects           string // of the last input
		current           string
		endsCall, hasCall bool
	}{
		"the first rings":                          {nil, "ring a", "select a", "a", false, false},
		"it rings again":                           {[]string{"a"}, "ring a", "", "a", false, false},
		"another rings":                            {[]string{"a"}, "ring b", "", "a", false, false},
		"the current one ends":                     {[]string{"a", "b", "c"}, "end a", "select b, end a", "b", false, false},
		"another ends":                             {[]string{"a", "b"}, "end b", "end b", "a", false, false},
		"the last ends: the call goes on":          {[]string{"a"}, "end a", "end a", "a", false, false},
		"one rings after the last has ended":       {[]string{"a"}, "end a; ring b", "select b", "b", false, false},
		"the current one hangs up":                 {[]string{"a", "b"}, "close a", "select b, end a, close a", "b", false, false},
		"a request fails in one of two":            {[]string{"a", "b"}, "fail a", "select b, end a, close a", "b", false, false},
		"a request fails in the last":              {[]string{"a"}, "fail a", "", "a", true, false},
		"a request fails in the last that lives":   {[]string{"a", "b"}, "close b; fail a", "", "a", true, false},
		"the other was made by a request alone":    {[]string{"a"}, "request b; fail a", "", "a", true, false},
		"a request fails in one that has ended":    {[]string{"a", "b"}, "end a; fail a", "", "b", false, false},
		"a request fails in the call":              {[]string{"a", "b"}, "win a; fail a", "", "a", true, true},
		"the current one answers":                  {[]string{"a"}, "win a", "", "a", false, true},
		"another answers":                          {[]string{"a", "b", "c"}, "win b", "select b, close a, end a, close c, end c", "b", false, true},
		"one answers that has ended":               {[]string{"a", "b"}, "end a; win a", "select a, close b, end b", "a", false, true},
		"one answers after another has ended":      {[]string{"a", "b"}, "end b; win a", "close b", "a", false, true},
		"one answers after another was closed":     {[]string{"a", "b"}, "close b; win a", "", "a", false, true},
		"the INVITE is refused":                    {[]string{"a", "b"}, "closeall", "close a, end a, close b, end b", "a", false, false},
		"the INVITE is refused again":              {[]string{"a", "b"}, "closeall; closeall", "", "a", false, false},
		"the INVITE is sent again, and one rings":  {[]string{"a"}, "closeall; restart; ring b", "select b", "b", false, false},
		"the call of a further fork: nothing else": {[]string{"a"}, "win a; over; closeall", "", "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := ringing(row.forks...)
			effects, endsCall := []Effect[*peer](nil), false
			for _, input := range strings.Split(row.inputs, "; ") {
				effects, endsCall = step(s, input)
			}
			require.Equal(t, row.effects, show(effects))
			require.Equal(t, row.endsCall, endsCall)
			require.Equal(t, row.hasCall, s.Won())
			current := ""
			if e := s.Current(); e != nil {
				current = e.Tag
			}
			require.Equal(t, row.current, current)
		})
	}
}

// step gives one input, such as "end a".
func step(s *peers, input string) (effects []Effect[*peer], endsCall bool) {
	verb, tag, _ := strings.Cut(input, " ")
	e := s.Find(tag)
	if e == nil && tag != "" {
		e = &peer{Early{Tag: tag}}
		s.Add(e)
	}
	switch verb {
	case "ring":
		e.Hear(180, false)
		return s.Rang(e, nil), false
	case "end":
		return s.End(e, nil), false
	case "close":
		return s.Close(e, nil), false
	case "fail":
		return s.Failed(e, nil)
	case "win":
		e.HearSuccess(200)
		return s.Win(e, nil), false
	case "closeall":
		return s.CloseAll(nil), false
	case "restart":
		s.Restart()
	case "over":
		s.Over()
	}
	return nil, false
}

func after(s *peers, inputs string) *peers {
	for _, input := range strings.Split(inputs, "; ") {
		step(s, input)
	}
	return s
}

func full() *peers {
	s := ringing()
	for i := range MaxForks {
		after(s, fmt.Sprint("ring t", i))
	}
	return s
}

// RFC 3261 12.1.2, 13.2.2.4, RFC 6141 4.3.
func TestWhatAResponseSetsInItsEarlyDialog(t *testing.T) {
	var e Early
	require.False(t, e.Lives())
	require.Equal(t, LearnAll, e.Hear(180, false))
	require.Equal(t, LearnIdentity, e.Hear(183, false))
	require.Equal(t, LearnTarget, e.Hear(182, true))
	require.Equal(t, 182, e.Status())
	require.True(t, e.Lives())
	require.Equal(t, LearnAll, e.HearSuccess(200))
	require.Equal(t, 200, e.Status())
	theirs := Live("ours")
	require.True(t, theirs.Lives() && !theirs.Ended())
	require.Equal(t, LearnIdentity, theirs.Hear(180, false))
}

// RFC 3261 13.2.2.4: each further fork is released once, and no more of them than are bounded.
func TestFurtherForksAreReleasedOnce(t *testing.T) {
	s := after(ringing("a"), "win a")
	_, found, isFull := s.Released("b")
	require.False(t, found || isFull)
	s.Release("b", "call of b")
	fork, found, _ := s.Released("b")
	require.True(t, found)
	require.Equal(t, "call of b", fork)
	for i := range MaxForks - 1 {
		s.Release(fmt.Sprint(i), "")
	}
	_, found, isFull = s.Released("x")
	require.True(t, !found && isFull)
	_, found, _ = s.Released("b")
	require.True(t, found, "one that is known is repeated all the same")
	s.Over()
	require.Empty(t, s.All())
	require.Equal(t, Repeated, s.Success("a", false))
	_, found, isFull = s.Released("b")
	require.False(t, found || isFull)
}
