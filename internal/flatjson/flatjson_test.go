package flatjson_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/flatjson"
)

type record struct {
	text    string
	data    []byte
	list    []string
	flag    bool
	number  int64
	counter uint64
	address netip.AddrPort
}

var fields = []flatjson.Field[record]{
	flatjson.Address("a", func(r *record) *netip.AddrPort { return &r.address }),
	flatjson.Bytes("b", func(r *record) *[]byte { return &r.data }),
	flatjson.Number("c", func(r *record) *uint64 { return &r.counter }),
	flatjson.Flag("f", func(r *record) *bool { return &r.flag }),
	flatjson.List("l", func(r *record) *[]string { return &r.list }),
	flatjson.Number("n", func(r *record) *int64 { return &r.number }),
	flatjson.Text("t", func(r *record) *string { return &r.text }),
}

func TestFieldsAreWrittenAndReadBack(t *testing.T) {
	for want, r := range map[string]record{
		`{}`:                    {},
		`{"a":"10.0.0.1:5060"}`: {address: netip.MustParseAddrPort("10.0.0.1:5060")},
		`{"b":"v=0\r\n"}`:       {data: []byte("v=0\r\n")},
		`{"b":["/w=="]}`:        {data: []byte{0xff}},
		`{"c":18446744073709551615,"n":-9223372036854775808}`: {counter: 1<<64 - 1, number: -1 << 63},
		`{"f":true}`:              {flag: true},
		`{"l":[]}`:                {list: []string{}},
		`{"l":["","b",["gA=="]]}`: {list: []string{"", "b", "\x80"}},
		`{"t":"\"a\\\u003cb\u003e\u0026\u0000\u2028ü"}`: {text: "\"a\\<b>&\x00\u2028ü"},
	} {
		text := flatjson.Write(&r, fields, nil)
		require.Equal(t, want, string(text))
		require.True(t, json.Valid(text))
		object, err := flatjson.Parse(text)
		require.NoError(t, err)
		var back record
		require.NoError(t, flatjson.Read(&back, fields, object))
		require.Equal(t, r, back)
		require.Empty(t, object)
	}
}

// Fields of a later version are kept, between their neighbours.
func TestUnknownFieldsAreKept(t *testing.T) {
	const text = `{"a0":{"x":"\u003c"},"f":true,"g":[1,2],"t":"x","z":null}`
	object, err := flatjson.Parse([]byte(`{"z":null,"t":"x","f":true, "g":[1, 2],"a0":{"x":"<"}}`))
	require.NoError(t, err)
	var r record
	require.NoError(t, flatjson.Read(&r, fields, object))
	kept, err := object.Kept()
	require.NoError(t, err)
	require.Len(t, kept, 3)
	require.Equal(t, text, string(flatjson.Write(&r, fields, kept)))
	require.Equal(t, `{"a0":{"x":"\u003c"},"g":[1,2],"z":null}`, string(flatjson.Write(&r, nil, kept)))
	none, err := flatjson.Unknown{}.Kept()
	require.NoError(t, err)
	require.Nil(t, none)
}

func TestTextsThatAreNoRecord(t *testing.T) {
	for _, text := range []string{``, `null`, `[]`, `1`, `{`, `{"t":1}`, `{"t":["a","b"]}`, `{"t":["%"]}`, `{"b":{}}`, `{"a":"x"}`, `{"a":1}`, `{"f":1}`, `{"n":"1"}`, `{"n":1.5}`, `{"c":-1}`, `{"l":null}`, `{"l":"x"}`, `{"l":[1]}`} {
		object, err := flatjson.Parse([]byte(text))
		if err == nil {
			err = flatjson.Read(new(record), fields, object)
		}
		require.Error(t, err, text)
	}
	_, err := flatjson.Unknown{"x": json.RawMessage("{")}.Kept()
	require.Error(t, err)
}
