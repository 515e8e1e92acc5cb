package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// probeOf asks the health listener of s.
func probeOf(t *testing.T, s *server, path string) (status int, body string) {
	t.Helper()
	var url string
	eventually(t, "a line about health", func() (ok bool) {
		_, url, ok = strings.Cut(s.errout.String(), "answered\" url=")
		return ok && strings.Contains(url, "\n")
	})
	url, _, _ = strings.Cut(url, "/readyz")
	r, err := http.Get(url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() //nolint:errcheck // it was read
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

func TestHealth_ReadyOnceItServes(t *testing.T) {
	s := serve(t, "--tcp=127.0.0.1:0", "--health=127.0.0.1:0")
	for _, path := range []string{"/livez", "/readyz"} {
		eventually(t, path, func() bool { // not at once: it listens a moment before
			status, body := probeOf(t, s, path)
			return status == 200 && body == "ok\n"
		})
	}
	if status, _ := probeOf(t, s, "/"); status != 404 {
		t.Errorf("/: %d", status)
	}
}

// A disk with less space than --min-free turns health red; what must be stored is
// refused, all else goes on.
func TestHealth_RedWhileTheDiskIsNearlyFull(t *testing.T) {
	s := serve(t, "--tcp=127.0.0.1:0", "--health=127.0.0.1:0", "--data="+t.TempDir(), "--min-free=1000000GiB")
	eventually(t, "red", func() bool {
		status, body := probeOf(t, s, "/readyz")
		return status == 503 && strings.Contains(body, "nearly full")
	})
	if status, _ := probeOf(t, s, "/livez"); status != 200 {
		t.Errorf("/livez: %d", status)
	}
	if code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "a", "-m", "x", "-q", "1", "-r"); code != exitRejected || !strings.Contains(strings.ToLower(stderr), "quota") {
		t.Errorf("a message that must be stored: exit %d: %s", code, stderr)
	}
	for _, args := range [][]string{{"-q", "1"}, {"-q", "0", "-r"}, {"-q", "0"}} {
		if code, _, stderr := command(t, append([]string{"pub", "-u", s.urls[0], "-t", "a", "-m", "x"}, args...)...); code != 0 {
			t.Errorf("%v: exit %d: %s", args, code, stderr)
		}
	}
}

func TestHealth_AddressIsChecked(t *testing.T) {
	if code, _, stderr := command(t, "serve", "--health=nowhere"); code != exitUsage || !strings.Contains(stderr, `health: "nowhere" is not host:port`) {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
