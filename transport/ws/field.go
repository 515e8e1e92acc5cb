package ws

import (
	"strings"

	"github.com/gobwas/httphead"
)

// validToken reports whether s is a token (RFC 9110 section 5.6.2).
func validToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool { return httphead.OctetTypes[c].IsToken() }

// validValue reports whether s can be the value of a header field (RFC 9110
// section 5.5): no control character but the tab.
func validValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// validHost reports whether s consists of characters that a Host header can
// have (RFC 9110 section 7.2, RFC 3986 section 3.2).
func validHost(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~:[]%!$&'()*+,;=", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// listed reports whether one of the comma-separated lists has token, in any
// case.
func listed(lists []string, token string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.Trim(item, " \t"), token) {
				return true
			}
		}
	}
	return false
}
