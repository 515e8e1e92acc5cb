package clients

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hashplus/cmd/hashplus/launch"
)

// Two pages of one site, as their browser sees it: cookies go from each to the
// hosts of the other, whatever SameSite says.
const (
	ownHost     = "app.evil.test"
	foreignHost = "other.evil.test"
)

// dialBroker has a page open a WebSocket, send a CONNECT and wait for the end,
// which comes when the broker has refused, or after a DISCONNECT of its own.
func dialBroker(t *testing.T, d *driver, page, to string, protocols ...string) (got dialed) {
	t.Helper()
	packets := []byte{0x10, 13, 0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60, 0, 1, 'c', 0xe0, 0}
	how := map[string]any{"page": page, "url": to, "protocols": append([]string{"mqtt"}, protocols...), "name": room(t),
		"packet": base64.StdEncoding.EncodeToString(packets)}
	if err := d.call("", "dial", how, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// talks has MQTT.js on the page connect, and a message come back to it.
func talks(t *testing.T, d *driver, page string, s setup) {
	t.Helper()
	s.Version, s.ClientID, s.KeepAlive = v5, room(t), 30
	c := &foreignConn{driver: d, library: "mqttjs", page: page, in: newInbox(), name: room(t), setup: s}
	if _, err := c.connect(); err != nil {
		t.Fatal(err)
	}
	in := room(t)
	mustSubscribe(t, c, subscription{Filter: in, QoS: 1})
	mustPublish(t, c, text(in, 1, "hello"))
	if got := payloads(c.inbox().take(t, 1)); got != "hello" {
		t.Errorf("came %q", got)
	}
	mustDisconnect(t, c)
}

// loggedIn is a page of host that has the session as a cookie.
func loggedIn(t *testing.T, host, session string) (d *driver, page string) {
	t.Helper()
	d, page = openPage(t, host)
	logIn(t, d, page, origin(t, host), session)
	return d, page
}

// logIn gives the browser of the page the session as a cookie of the site.
func logIn(t *testing.T, d *driver, page, site, session string) {
	t.Helper()
	if err := d.call("", "go", map[string]any{"page": page, "url": site + "/login?session=" + session}, nil); err != nil {
		t.Fatal(err)
	}
	waitReady(t, d, page)
}

func origin(t *testing.T, host string) string {
	return strings.Replace(site(t), "localhost", host, 1)
}

// A page that logged in at its own site uses its cookie; another page in the
// same browser, to which the browser gives the same cookie, gets nowhere.
func TestHijack_AForeignPageCannotUseTheCookie(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	i := newIssuer(t, "one")
	b := startFor(t, "--ws", "127.0.0.1:0", "--jwt-keys", i.pem(t), "--jwt-from", "cookie=session", "--ws-origins", origin(t, ownHost))
	to := withHost(t, b.ws, ownHost)
	d, own := loggedIn(t, ownHost, i.token(t, "alice", time.Hour))
	if got := dialBroker(t, d, own, to); !got.Opened || got.Protocol != "mqtt" || got.Code != 1000 {
		t.Fatalf("the page that has logged in: %+v", got)
	}
	talks(t, d, own, setup{URL: to})

	// The browser does send the cookie for a foreign page, so the refusals below
	// are the broker's.
	cookies := make(chan string, 1)
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}, CheckOrigin: func(*http.Request) bool { return true }}
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookies <- r.Header.Get("Cookie")
		if conn, err := upgrader.Upgrade(w, r, nil); err == nil {
			conn.Close()
		}
	}))
	defer open.Close()
	d, foreign := openBeside(t, own, foreignHost)
	dialFrom(t, d, foreign, withHost(t, "ws"+strings.TrimPrefix(open.URL, "http"), ownHost))
	if got := <-cookies; !strings.Contains(got, "session=eyJ") {
		t.Fatalf("the browser sends no cookie for a foreign page, but %q", got)
	}
	for name, url := range map[string]string{"by the page's host": to, "by address": b.ws, "by name": withHost(t, b.ws, "localhost")} {
		if got := dialBroker(t, d, foreign, url); got.Opened {
			t.Errorf("%s: a foreign page connected: %+v", name, got)
		}
	}
	// A page from this machine is let in by a loopback listener, but not its
	// cookie: every program here can serve one.
	d, local := loggedIn(t, "localhost", i.token(t, "alice", time.Hour))
	if got := dialBroker(t, d, local, withHost(t, b.ws, "localhost")); !got.Opened || got.Code != 1008 {
		t.Errorf("a page on another port of this machine: %+v", got)
	}
	noSecretsIn(t, b, i.issued)
}

func TestHijack_ASubprotocolTokenLogsAPageIn(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	i := newIssuer(t, "one")
	b := startFor(t, "--ws", "127.0.0.1:0", "--jwt-keys", i.pem(t), "--jwt-from", "subprotocol", "--ws-origins", origin(t, ownHost))
	d, page := openPage(t, ownHost)
	to := withHost(t, b.ws, ownHost)
	if got := dialBroker(t, d, page, to, "bearer."+i.token(t, "alice", time.Hour)); !got.Opened || got.Protocol != "mqtt" || got.Code != 1000 {
		t.Errorf("with a token: %+v", got)
	}
	talks(t, d, page, setup{URL: to, login: login{Subprotocol: "bearer." + i.token(t, "alice", time.Hour)}})
	for name, protocols := range map[string][]string{
		"none": nil, "expired": {"bearer." + i.token(t, "alice", -time.Hour)}, "a stranger's": {"bearer." + newIssuer(t, "one").token(t, "alice", time.Hour)},
		"two": {"bearer." + i.token(t, "alice", time.Hour), "bearer." + i.token(t, "bob", time.Hour)},
	} {
		if got := dialBroker(t, d, page, to, protocols...); !got.Opened || got.Code != 1008 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// With a cookie that is not switched on the page is nobody.
	d, page = loggedIn(t, ownHost, i.token(t, "alice", time.Hour))
	if got := dialBroker(t, d, page, to); got.Code != 1008 {
		t.Errorf("a cookie, which is not switched on: %+v", got)
	}
	noSecretsIn(t, b, i.issued)
}

func TestHijack_CookiesNeedAListOfOrigins(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	i := newIssuer(t, "one")
	keys := i.pem(t)
	for _, origins := range [][]string{nil, {"--ws-origins", "*"}, {"--ws-origins", "https://app.example,*"}, {"--ws-origins", "null"}} {
		args := append([]string{"serve", "--check", "--ws", "127.0.0.1:0", "--jwt-keys", keys, "--jwt-from", "header,cookie=session"}, origins...)
		out, err := launch.Command(binary, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "jwt-from: cookie needs the origins") {
			t.Errorf("%q: %v, %s", origins, err, out)
		}
	}
}
