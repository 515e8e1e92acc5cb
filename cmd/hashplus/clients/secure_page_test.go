package clients

import (
	"crypto/tls"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trusting is Chromium of a user who trusts the authority, until the test ends.
func trusting(t *testing.T, ca *authority) *driver {
	t.Helper()
	home, certificate := t.TempDir(), file(t, "ca.pem", ca.pem)
	// Chromium has used both places.
	for _, db := range []string{".pki/nssdb", ".local/share/pki/nssdb"} {
		db = filepath.Join(home, db)
		if err := os.MkdirAll(db, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"-N", "--empty-password"}, {"-A", "-n", "tests", "-t", "C,,", "-i", certificate}} {
			if out, err := exec.Command(tool(t, "certutil"), append([]string{"-d", "sql:" + db}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("certutil %s: %v\n%s", args[0], err, out)
			}
		}
	}
	d := startBrowser(t, home)
	t.Cleanup(d.stop)
	return d
}

// A page that came over HTTPS may open no socket but wss: there it logs in by its
// cookie, which is one for HTTPS alone, or by a token in the sub-protocol list.
// Whoever does not trust the broker's certificate does not get that far.
func TestSecurePage_LogsInByCookieAndBySubprotocolToken(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	ca, i := newAuthority(t), newIssuer(t, "one")
	certificate, key := ca.server(ownHost, foreignHost)
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	secure := httptest.NewUnstartedServer(pages())
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secure.StartTLS()
	defer secure.Close()
	at := func(host string) string { return withHost(t, secure.URL, host) }

	b := startFor(t, "--wss", "127.0.0.1:0", "--ws", "127.0.0.1:0", "--tls-cert", file(t, "server.pem", certificate), "--tls-key", file(t, "server.key", key),
		"--jwt-keys", i.pem(t), "--jwt-from", "cookie=session,subprotocol", "--ws-origins", at(ownHost))
	to := withHost(t, b.wss, ownHost)

	d := trusting(t, ca)
	page := openIn(t, d, "", at(ownHost))
	if got := dialBroker(t, d, page, to); !got.Opened || got.Code != 1008 {
		t.Errorf("before it has logged in: %+v", got)
	}
	token := "bearer." + i.token(t, "alice", time.Hour)
	if got := dialBroker(t, d, page, to, token); !got.Opened || got.Protocol != "mqtt" || got.Code != 1000 {
		t.Errorf("by a token in the sub-protocol list: %+v", got)
	}
	talks(t, d, page, setup{URL: to, login: login{Subprotocol: token}})

	logIn(t, d, page, at(ownHost), i.token(t, "bob", time.Hour))
	if got := dialBroker(t, d, page, to); !got.Opened || got.Protocol != "mqtt" || got.Code != 1000 {
		t.Errorf("by its cookie: %+v", got)
	}
	talks(t, d, page, setup{URL: to})

	foreign := openIn(t, d, page, at(foreignHost))
	if got := dialBroker(t, d, foreign, to); got.Opened {
		t.Errorf("a foreign page with the same cookie: %+v", got)
	}
	plain := withHost(t, b.ws, ownHost)
	var refused dialed
	how := map[string]any{"page": page, "url": plain, "protocols": []string{"mqtt"}}
	if err := d.call("", "dial", how, &refused); err == nil && refused.Opened {
		t.Errorf("without TLS: %+v", refused)
	} else if err != nil && !strings.Contains(err.Error(), "insecure") {
		t.Error(err)
	}
	stranger, elsewhere := openPage(t, ownHost)
	if got := dialBroker(t, stranger, elsewhere, to); got.Opened {
		t.Errorf("a browser that does not trust the certificate: %+v", got)
	}
	noSecretsIn(t, b, i.issued)
}
