package ws

import (
	"bytes"
	"net/http"
	"net/url"
	"strings"

	"hashplus/transport/link"
)

// Request finds the end of an HTTP request's header while it comes in, in time
// that is linear in its length however it is split. The zero value is at the
// start of a request.
type Request struct {
	scanned int // bytes without the end of the header
	line    int // where the line begins that is not complete
	lines   int
}

// Parse looks at buf, which holds everything received since the request began,
// and returns the length of the header with its empty line, or 0 while that is
// not complete. Bytes after it are the client's first frames. maxBytes bounds
// the header and maxLines its lines after the first; err is a *Refusal where
// they are exceeded, or where this is not HTTP at all.
func (r *Request) Parse(buf []byte, maxBytes, maxLines int) (n int, err error) {
	if r.scanned == 0 && len(buf) > 0 && !isTokenByte(buf[0]) {
		return 0, errNotHTTP
	}
	limit := min(len(buf), maxBytes)
	for {
		i := bytes.IndexByte(buf[r.scanned:limit], '\n')
		if i < 0 {
			r.scanned = limit
			break
		}
		end := r.scanned + i
		empty := end == r.line || end == r.line+1 && buf[r.line] == '\r'
		r.scanned, r.line = end+1, end+1
		if empty && r.lines > 0 {
			return r.scanned, nil
		}
		if r.lines++; r.lines-1 > maxLines {
			return 0, errTooMany
		}
	}
	switch {
	case len(buf) < maxBytes:
		return 0, nil
	case r.lines == 0:
		return 0, errTarget
	default:
		return 0, errTooLarge
	}
}

// request is a parsed request line and header.
type request struct {
	link.Handshake
	method string
	old    bool // HTTP/1.0
}

// parseRequest takes apart a complete header. The strings are views of one copy
// of it.
func parseRequest(block []byte) (*request, error) {
	lines := string(block)
	first, lines, _ := cutLine(lines)
	method, rest, ok1 := strings.Cut(first, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !validToken(method) {
		return nil, errMalformed
	}
	r := &request{method: method}
	var err error
	if r.old, err = parseVersion(version); err != nil {
		return nil, err
	}
	if err := r.parseHeader(lines); err != nil {
		return nil, err
	}
	hosts := r.Header["Host"]
	delete(r.Header, "Host")
	// RFC 9112 section 3.2: exactly one, also where the target has a host.
	if len(hosts) > 1 || len(hosts) == 0 && !r.old {
		return nil, errHost
	}
	if len(hosts) == 1 {
		r.Host = hosts[0]
	}
	return r, r.parseTarget(target)
}

// cutLine returns the first line of s without its end, and what follows it.
func cutLine(s string) (line, rest string, found bool) {
	line, rest, found = strings.Cut(s, "\n")
	return strings.TrimSuffix(line, "\r"), rest, found
}

// parseVersion accepts HTTP/1.x; a minor version above 1 is read as 1 (RFC 9110
// section 2.5).
func parseVersion(v string) (old bool, err error) {
	digit := func(c byte) bool { return '0' <= c && c <= '9' }
	if len(v) != len("HTTP/1.1") || v[:5] != "HTTP/" || !digit(v[5]) || v[6] != '.' || !digit(v[7]) {
		return false, errMalformed
	}
	if v[5] != '1' {
		return false, errHTTP
	}
	return v[7] == '0', nil
}

func (r *request) parseHeader(lines string) error {
	// One array for the values of all names that come once.
	values := make([]string, 0, strings.Count(lines, "\n"))
	r.Header = make(map[string][]string, cap(values))
	for {
		line, rest, found := cutLine(lines)
		if !found || line == "" {
			return nil
		}
		lines = rest
		if line[0] == ' ' || line[0] == '\t' {
			return errFold // RFC 9112 section 5.2
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		// A space before the colon makes the name invalid (RFC 9112 section 5.1).
		if !ok || !validToken(name) || !validValue(value) {
			return errMalformed
		}
		name = http.CanonicalHeaderKey(name)
		if earlier, ok := r.Header[name]; ok {
			r.Header[name] = append(earlier, value)
			continue
		}
		n := len(values)
		values = append(values, value)
		r.Header[name] = values[n : n+1 : n+1]
	}
}

// parseTarget takes the origin form and the absolute form (RFC 9112 section
// 3.2), whose host replaces the Host header's.
func (r *request) parseTarget(target string) error {
	if plainPath(target) {
		r.Path = target
		if !validHost(r.Host) && !(r.old && r.Host == "") {
			return errHost
		}
		return nil
	}
	u, err := url.ParseRequestURI(target)
	if err != nil || u.User != nil || target[0] != '/' && u.Host == "" {
		return errMalformed
	}
	if u.Host != "" {
		r.Host = u.Host
	}
	if !validHost(r.Host) && !(r.old && r.Host == "") {
		return errHost
	}
	r.Path, r.Query = u.Path, u.RawQuery
	if r.Path == "" {
		r.Path = "/"
	}
	return nil
}

// plainPath reports whether target is a path in which nothing is escaped, with
// no query: the usual case, which costs no url.URL.
func plainPath(target string) bool {
	if target == "" || target[0] != '/' {
		return false
	}
	for i := range len(target) {
		switch c := target[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '/', c == '-', c == '_', c == '.', c == '~':
		default:
			return false
		}
	}
	return true
}

// AppendRequest appends the header of r, a request that net/http has parsed, in
// the form that Upgrader.Upgrade takes.
func AppendRequest(dst []byte, r *http.Request) []byte {
	b := bytes.NewBuffer(dst)
	b.WriteString(r.Method + " " + r.URL.RequestURI() + " " + r.Proto + "\r\nHost: " + r.Host + "\r\n")
	_ = r.Header.Write(b) // a bytes.Buffer does not fail
	b.WriteString("\r\n")
	return b.Bytes()
}
