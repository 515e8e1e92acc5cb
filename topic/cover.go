package topic

import "strings"

// Covers is the definition of covering, written like Matches to be read:
// filter matches every name that other matches. Both must be valid; a name is a
// filter that matches itself.
func Covers(filter, other string) bool {
	if isSystem(other) && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	if filter == "+/#" {
		return true // every name has a first level, so this is `#`
	}
	filters, others := strings.Split(filter, "/"), strings.Split(nonEmpty(other), "/")
	for i, f := range filters {
		switch {
		case f == "#":
			return true
		case i == len(others) || others[i] == "#":
			return false
		case f != "+" && f != others[i]:
			return false
		}
	}
	return len(filters) == len(others)
}

// Overlap is the definition of overlapping: there is a name that both filters
// match. Both must be valid.
func Overlap(a, b string) bool {
	if isSystem(a) != isSystem(b) {
		return false
	}
	as, bs := strings.Split(nonEmpty(a), "/"), strings.Split(nonEmpty(b), "/")
	for i := 0; ; i++ {
		switch {
		case i < len(as) && as[i] == "#", i < len(bs) && bs[i] == "#":
			return true // all levels above match, and so does what is left
		case i == len(as) || i == len(bs):
			return len(as) == len(bs)
		case as[i] != "+" && bs[i] != "+" && as[i] != bs[i]:
			return false
		}
	}
}

// nonEmpty is filter, or another for the same names: `/#` would match the empty
// name, and there is none.
func nonEmpty(filter string) string {
	if filter == "/#" {
		return "/+/#"
	}
	return filter
}
