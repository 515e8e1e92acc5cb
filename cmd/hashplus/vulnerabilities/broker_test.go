package vulnerabilities

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hashplus/cmd/hashplus/launch"
)

const patience = launch.Patience

// program is the path of the built hashplus.
var program string

func TestMain(m *testing.M) {
	os.Exit(launch.Main(func(built string) int {
		program = built
		return m.Run()
	}))
}

// broker is hashplus in a process of its own.
type broker struct {
	*launch.Server
	t       testing.TB
	tcp, ws string // host:port
}

// serve starts a broker on a TCP and a WebSocket listener. At the end of the
// test it must be there still, serve a client, have logged no panic, and go in
// order when it is told to.
func serve(t *testing.T, args ...string) *broker {
	t.Helper()
	s, err := launch.Start(program, append([]string{"--tcp=127.0.0.1:0", "--ws=127.0.0.1:0", "--drain=2s"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	s.Guard(t)
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("broker: %v", err)
		}
	})
	return &broker{s, t, s.Address("mqtt"), s.Address("ws")}
}

// open is serve for tests in which anybody may do anything: a client must still
// get its own messages at the end.
func open(t *testing.T, args ...string) *broker {
	t.Helper()
	b := serve(t, args...)
	t.Cleanup(func() {
		c := b.join(who{})
		c.subscribe("still/here", 1)
		c.publish("still/here", "yes", 1, 0)
		if p := c.message(); p.payload != "yes" {
			t.Errorf("after it all a message came as %q", p.payload)
		}
		c.drop()
	})
	return b
}

// guarded starts a broker with access rules and with users alice, bob, carol
// and some of odd names. A user's password is its name.
func guarded(t *testing.T, rules string, args ...string) *broker {
	t.Helper()
	return serve(t, append([]string{"--acl=" + file(t, rules), "--password-file=" + passwords(t, "alice", "bob", "carol", "+", "+#", "a/b")}, args...)...)
}

// file writes a file that goes with the test.
func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// passwords is a password file in which each user's password is its name.
func passwords(t testing.TB, users ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwords")
	for _, u := range users {
		cmd := launch.Command(program, "passwd", "--pbkdf2", "--iterations=1000", path, "--", u)
		cmd.Stdin = strings.NewReader(u + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("passwd %s: %v\n%s", u, err, out)
		}
	}
	return path
}

// peak is the largest resident memory that the broker ever had, in MiB.
func (b *broker) peak() int {
	kib, ok := b.Status("VmHWM")
	if !ok {
		b.t.Skip("there is no /proc here")
	}
	return kib >> 10
}

// grewLess fails the test if the broker's resident memory was ever more than
// limit MiB above what it was.
func (b *broker) grewLess(before, limit int) {
	b.t.Helper()
	grown := b.peak() - before
	b.t.Logf("RSS grew by %d MiB", grown)
	if grown > limit+16 { // of garbage that a busy machine collects late
		b.t.Errorf("RSS grew by %d MiB, more than %d", grown, limit)
	}
}
