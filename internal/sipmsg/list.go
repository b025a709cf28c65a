package sipmsg

// Cut returns the first value of a list, without the white space around it, and
// the text after the separator; found is false when there is none (RFC 3261
// 7.3.1). Separators in quoted-strings and in angle brackets are none.
func Cut(list string, separator byte) (value, rest string, found bool) {
	for i := 0; i < len(list); i++ {
		end := i + 1
		switch list[i] {
		case separator:
			return trim(list[:i]), list[i+1:], true
		case '"':
			end = quotedEnd(list, i)
		case '<':
			end = angleEnd(list, i)
		}
		if end < 0 {
			break // an open quote or bracket has all the rest in it
		}
		i = end - 1
	}
	return trim(list), "", false
}

// Split returns the values of a list; empty ones are left out.
func Split(list string, separator byte) []string {
	var values []string
	for more := true; more; {
		var value string
		if value, list, more = Cut(list, separator); value != "" {
			values = append(values, value)
		}
	}
	return values
}
