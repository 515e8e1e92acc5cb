package topic

import "strings"

// CheckFilter reports what is wrong with a topic filter, or nil: the rules of
// CheckName except that `+` and `#` may each fill a whole level, `#` only the
// last [MQTT-4.7.1-1] [MQTT-4.7.1-2]. `$share/` has no meaning here. The error
// is an Error.
func CheckFilter[T ~string | ~[]byte](filter T) error {
	if len(filter) == 0 {
		return errEmpty
	}
	if len(filter) > MaxLength {
		return errTooLong
	}
	for i := 0; i < len(filter); i++ {
		switch filter[i] {
		case 0:
			return errNull
		case '#':
			if i != len(filter)-1 || i > 0 && filter[i-1] != '/' {
				return errMultiLevel
			}
		case '+':
			if i > 0 && filter[i-1] != '/' || i < len(filter)-1 && filter[i+1] != '/' {
				return errOneLevel
			}
		}
	}
	return nil
}

// Matches is the definition of matching, written to be read, not to be fast:
// wildcards at the first level match no name that begins with `$`
// [MQTT-4.7.2-1]. Everything else here is held against it. Both arguments must
// be valid; bytes are compared as they are [MQTT-4.7.3-4].
func Matches(filter, name string) bool {
	if isSystem(name) && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	filters, names := strings.Split(filter, "/"), strings.Split(name, "/")
	for i, f := range filters {
		if f == "#" {
			return true // all levels above matched: `a/#` matches `a` too
		}
		if i == len(names) || f != "+" && f != names[i] {
			return false
		}
	}
	return len(filters) == len(names)
}

// hasWildcard tells whether a valid filter can match more than one name.
func hasWildcard(filter string) bool {
	return strings.IndexByte(filter, '+') >= 0 || filter[len(filter)-1] == '#'
}
