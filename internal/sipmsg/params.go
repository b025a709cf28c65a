package sipmsg

import "github.com/emiago/sipgo/sip"

// Params are the parameters of a value, as they are written in it: empty, or from the
// first semicolon on.
type Params string

// Param is one parameter. Value is unchanged, a quoted-string with its quotes; Set is true if
// there is a value, even an empty one.
type Param struct {
	Name, Value string
	Set         bool
}

// Next returns the first parameter and those behind it; false when there is no
// more. A parameter between two semicolons with nothing between them has no
// name.
func (p Params) Next() (first Param, rest Params, ok bool) {
	s := trimLeft(string(p))
	if s == "" || s[0] != ';' {
		return Param{}, "", false
	}
	s = s[1:]
	equals, i := -1, 0
	for ; i < len(s) && s[i] != ';'; i++ {
		switch s[i] {
		case '=':
			if equals < 0 {
				equals = i
			}
		case '"':
			if i = quotedEnd(s, i) - 1; i < 0 {
				i = len(s) - 1
			}
		}
	}
	part, rest := s[:i], Params(s[i:])
	if equals < 0 {
		return Param{Name: trim(part)}, rest, true
	}
	return Param{Name: trim(part[:equals]), Value: trim(part[equals+1:]), Set: true}, rest, true
}

// Get returns the value of the first parameter of that name, as it came.
func (p Params) Get(name string) (value string, found bool) {
	for {
		first, rest, ok := p.Next()
		if !ok {
			return "", false
		}
		if EqualFold(first.Name, name) {
			return first.Value, true
		}
		p = rest
	}
}

// maxParams bounds the parameters of one value: each costs more in a struct
// than in the text.
const maxParams = 128

// Valid reports whether the parameters can be separated: every quoted-string ends, and is a
// whole value.
func (p Params) Valid() bool {
	for n := 0; trim(string(p)) != ""; n++ {
		first, rest, ok := p.Next()
		if !ok || n == maxParams || !first.valid() {
			return false
		}
		p = rest
	}
	return true
}

func (p Param) valid() bool {
	if p.Value != "" && p.Value[0] == '"' {
		return isName(p.Name) && quotedEnd(p.Value, 0) == len(p.Value)
	}
	return isName(p.Name) && isUnquoted(p.Value) && !(p.Set && p.Name == "")
}

// isName is lenient: it accepts any name without quotes and control characters.
func isName(s string) bool { return isUnquoted(s) }

func isUnquoted(s string) bool {
	for i := range len(s) {
		if s[i] == '"' || isControl(s[i]) {
			return false
		}
	}
	return true
}

// appendTo appends the parameters as sipgo holds them, those of the same name
// too. Names are in lower case when fold says so.
func (p Params) appendTo(list sip.HeaderParams, fold bool) sip.HeaderParams {
	for {
		first, rest, ok := p.Next()
		if !ok {
			return list
		}
		name := first.Name
		if fold {
			name = toLower(name)
		}
		list = append(list, sip.HeaderKV{K: name, V: held(first.Value)})
		p = rest
	}
}

// held is a value as sipgo holds it: it writes quotes around one with white
// space, and nothing around any other.
func held(value string) string {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return value
	}
	for i := range len(value) {
		if isSpace(value[i]) {
			return value[1 : len(value)-1]
		}
	}
	return value
}
