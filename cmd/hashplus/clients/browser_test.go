package clients

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// dialed is how a bare WebSocket of a page ended.
type dialed struct {
	Opened   bool   `json:"opened"`
	Protocol string `json:"protocol"`
	Code     int    `json:"code"`
	Reason   string `json:"reason"`
}

// openPage opens the page of the drivers under the host name, in a tab that
// closes with the test.
func openPage(t *testing.T, host string) (d *driver, page string) {
	t.Helper()
	return openBeside(t, "", host)
}

// openBeside is openPage in the browser of the page beside, with its cookies.
func openBeside(t *testing.T, beside, host string) (d *driver, page string) {
	t.Helper()
	d = browser(t)
	return d, openIn(t, d, beside, origin(t, host))
}

// openIn is openBeside for a page of any browser and site.
func openIn(t *testing.T, d *driver, beside, site string) (page string) {
	t.Helper()
	page = room(t)
	if err := d.call("", "open", map[string]any{"page": page, "beside": beside, "url": site + "/drivers/page.html"}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.call("", "close", map[string]any{"page": page}, nil) }) // the test may have closed it
	waitReady(t, d, page)
	return page
}

func waitReady(t *testing.T, d *driver, page string) {
	t.Helper()
	if err := d.call("", "wait", map[string]any{"page": page, "script": "window.ready"}, nil); err != nil {
		t.Fatal(err)
	}
}

func dialFrom(t *testing.T, d *driver, page, to string) (got dialed) {
	t.Helper()
	if err := d.call("", "dial", map[string]any{"page": page, "url": to, "protocols": []string{"mqtt"}}, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// withHost is the URL with another host name before the same port.
func withHost(t *testing.T, raw, host string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = host + ":" + u.Port()
	return u.String()
}

func TestBrowser_PageFromLocalhostConnects(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"localhost", "127.0.0.1"} {
		d, page := openPage(t, host)
		for _, to := range []string{shared.ws, withHost(t, shared.ws, "localhost")} {
			if got := dialFrom(t, d, page, to); !got.Opened || got.Protocol != "mqtt" {
				t.Errorf("a page from %s at %s: %+v", host, to, got)
			}
		}
	}
}

// Chromium is told that evil.test is 127.0.0.1, so the page is a stranger's by
// its name alone, as one from the Internet is.
func TestBrowser_PageFromAForeignOriginCannotConnect(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	d, page := openPage(t, "evil.test")

	// That a page like this one can connect to a server here at all is what
	// makes the refusals below the broker's own.
	upgrader := websocket.Upgrader{Subprotocols: []string{"mqtt"}, CheckOrigin: func(*http.Request) bool { return true }}
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered
		}
		defer conn.Close()
		for err == nil {
			_, _, err = conn.ReadMessage()
		}
	}))
	defer open.Close()
	if got := dialFrom(t, d, page, "ws"+strings.TrimPrefix(open.URL, "http")); !got.Opened {
		t.Fatalf("the page cannot connect to a server that lets every origin in: %+v", got)
	}

	for name, to := range map[string]string{
		"by address":           shared.ws,
		"by name":              withHost(t, shared.ws, "localhost"),
		"by its own, rebound":  withHost(t, shared.ws, "evil.test"),
		"by a name it invents": withHost(t, shared.ws, "127.0.0.1.evil.test"),
	} {
		if got := dialFrom(t, d, page, to); got.Opened {
			t.Errorf("%s: a page from evil.test connected to %s", name, to)
		}
	}
}

// A page from localhost that reaches the broker by a name which is not a
// loopback one shows that Host is checked, not Origin alone.
func TestBrowser_HostThatIsNotLoopbackIsRefused(t *testing.T) {
	needHashplus(t)
	t.Parallel()
	d, page := openPage(t, "localhost")
	if got := dialFrom(t, d, page, withHost(t, shared.ws, "evil.test")); got.Opened {
		t.Errorf("connected with Host evil.test: %+v", got)
	}
}

func TestBrowser_PageOfAListedOriginConnects(t *testing.T) {
	t.Parallel()
	listed := strings.Replace(site(t), "localhost", "evil.test", 1)
	b := startFor(t, "--ws", "127.0.0.1:0", "--ws-origins", listed)
	d, page := openPage(t, "evil.test")
	if got := dialFrom(t, d, page, b.ws); !got.Opened || got.Protocol != "mqtt" {
		t.Errorf("a page from %s: %+v", listed, got)
	}
	d, page = openPage(t, "sub.evil.test") // an exact match lets in no neighbour
	if got := dialFrom(t, d, page, b.ws); got.Opened {
		t.Error("a page from sub.evil.test connected")
	}
}

func TestBrowser_ClosedTabFiresItsWill(t *testing.T) { // [MQTT-3.1.2-8]
	t.Parallel()
	for _, lib := range []string{"mqttjs", "pahojs"} {
		t.Run(lib, func(t *testing.T) {
			t.Parallel()
			in := room(t)
			watcher, _ := kind{library: libraries()[0], version: v311, scheme: "mqtt"}.dial(t, setup{})
			mustSubscribe(t, watcher, subscription{Filter: in, QoS: 1})
			d, page := openPage(t, "localhost")
			will := text(in, 1, "closed")
			c := &foreignConn{driver: d, library: lib, page: page, in: newInbox(), name: room(t),
				setup: setup{URL: shared.ws, Version: v311, ClientID: room(t), KeepAlive: 30, Will: &will}}
			if _, err := c.connect(); err != nil {
				t.Fatal(err)
			}
			if err := d.call("", "close", map[string]any{"page": page}, nil); err != nil {
				t.Fatal(err)
			}
			if got := payloads(watcher.inbox().take(t, 1)); got != "closed" {
				t.Errorf("came %q", got)
			}
		})
	}
}

func TestBrowser_TextMessageIsRefusedWithUnsupportedData(t *testing.T) { // [MQTT-6.0.0-1]
	needHashplus(t)
	t.Parallel()
	d, page := openPage(t, "localhost")
	var got dialed
	how := map[string]any{"page": page, "url": shared.ws, "protocols": []string{"mqtt"}, "name": room(t), "text": "hello"}
	if err := d.call("", "dial", how, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Opened || got.Code != websocket.CloseUnsupportedData {
		t.Errorf("the socket ended with %+v", got)
	}
}
