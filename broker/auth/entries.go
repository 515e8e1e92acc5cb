package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unicode/utf8"
)

// Password and SCRAM files hold one entry on a line, the user's name and a
// secret, with a colon between them. Empty lines and lines that begin with #
// are left out.

// parseEntries calls f for each entry of text. The error names each faulty line
// as name:line; none shows a secret.
func parseEntries(name string, text []byte, f func(user, secret string) error) error {
	var faults []error
	seen := make(map[string]int)
	number := 0
	for line := range strings.SplitSeq(strings.TrimPrefix(string(text), "\ufeff"), "\n") {
		number++
		if line = strings.TrimRight(line, " \t\r"); line == "" || line[0] == '#' {
			continue
		}
		user, secret, found := strings.Cut(line, ":")
		var err error
		switch first := seen[user]; {
		case !found:
			err = errors.New("no colon: an entry is USER:SECRET")
		case checkUser(user) != nil:
			err = checkUser(user)
		case first != 0:
			err = fmt.Errorf("user %q has an entry in line %d already", user, first)
		default:
			seen[user] = number
			err = f(user, secret)
		}
		switch {
		case err == nil:
		case len(faults) == maxFaults:
			return errors.Join(append(faults, fmt.Errorf("%s: there are more", name))...)
		default:
			faults = append(faults, fmt.Errorf("%s:%d: %w", name, number, err))
		}
	}
	return errors.Join(faults...)
}

// checkUser reports why no entry can be for user.
func checkUser(user string) error {
	switch {
	case user == "":
		return errors.New("the username is empty")
	case user[0] == '#':
		return fmt.Errorf("the username %q begins with #, which makes the line a comment", user)
	case strings.ContainsAny(user, ":\r\n\x00"):
		return fmt.Errorf("the username %q has a colon, a line break or U+0000 in it", user)
	case !utf8.ValidString(user):
		return fmt.Errorf("the username %q is not UTF-8", user)
	case len(user) > 65535:
		return errors.New("the username is longer than 65,535 bytes")
	}
	return nil
}

// SetEntry returns text with entry, as NewPassword or NewScram made it, in
// place of the user's entry, or at the end if there was none. All other lines
// stay as they are.
func SetEntry(text []byte, entry string) []byte {
	user, _, _ := strings.Cut(entry, ":")
	var out strings.Builder
	done := false
	for line := range strings.Lines(string(text)) {
		if !isEntryOf(line, user) {
			out.WriteString(line)
			continue
		}
		if !done {
			out.WriteString(entry + "\n")
		}
		done = true
	}
	if !done {
		if s := out.String(); s != "" && !strings.HasSuffix(s, "\n") {
			out.WriteByte('\n')
		}
		out.WriteString(entry + "\n")
	}
	return []byte(out.String())
}

// RemoveEntry returns text without the user's entry, and whether there was one.
func RemoveEntry(text []byte, user string) (rest []byte, found bool) {
	for line := range strings.Lines(string(text)) {
		if isEntryOf(line, user) {
			found = true
			continue
		}
		rest = append(rest, line...)
	}
	return rest, found
}

func isEntryOf(line, user string) bool {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(line, "\ufeff"), user)
	return ok && strings.HasPrefix(rest, ":") && line[0] != '#'
}

// WorldReadable reports whether a file with secrets may be read by every user
// of the machine. On Windows, which has no such mode, it never does.
func WorldReadable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o004 != 0
}

// WorldWritable reports whether a file that says who may do what may be changed by
// every user of the machine. On Windows it never does.
func WorldWritable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o002 != 0
}

// pretence makes up what an unknown user's entry would hold, so that asking for
// a user does not tell whether there is one. The same name gets the same
// answers until the file changes.
type pretence [sha256.Size]byte

// newPretence is keyed with the contents of a file of secrets, which nobody
// knows who does not know them already, and which is there again after a
// restart.
func newPretence(text []byte) pretence {
	return pretence(mac([]byte("hashplus: entries of unknown users"), string(text)))
}

// bytes are 32 bytes for one purpose and user.
func (p *pretence) bytes(purpose, user string) []byte { return mac(p[:], purpose+"\x00"+user) }

// pick chooses one of n for user.
func (p *pretence) pick(user string, n int) int {
	return int(binary.BigEndian.Uint64(p.bytes("pick", user)) % uint64(n))
}

// mac is HMAC-SHA-256.
func mac(key []byte, message string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(message)) // never fails
	return h.Sum(nil)
}
