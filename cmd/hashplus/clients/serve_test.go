package clients

import (
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"hashplus/cmd/hashplus/launch"
)

// serverShuttingDown is the reason code of the DISCONNECT that says so.
const serverShuttingDown = 0x8b

func TestServe_ClientsComeBackAfterARestart(t *testing.T) {
	t.Parallel()
	addresses, err := launch.FreeAddresses(2)
	if err != nil {
		t.Fatal(err)
	}
	listeners := []string{"--tcp", addresses[0], "--ws", addresses[1]}
	first := startFor(t, listeners...)
	type comer struct {
		kind
		client
	}
	var all []comer
	for _, l := range libraries() {
		for _, scheme := range l.schemes {
			k := kind{l, l.versions[len(l.versions)-1], scheme}
			url := first.tcp
			if scheme == "ws" {
				url = first.ws
			}
			c, _ := k.dial(t, setup{URL: url})
			all = append(all, comer{k, c})
		}
	}
	if err := first.Stop(); err != nil { // exit status 0
		t.Fatalf("after SIGTERM: %v", err)
	}
	for _, c := range all {
		c.inbox().awaitDown(t, 1)
		if c.version == v5 && c.name != "paho-python" { // which does not tell who disconnected
			if got := c.inbox().awaitReasons(t); !slices.Equal(got, []int{serverShuttingDown}) {
				t.Errorf("%v was told %v, want [%d]", c.kind, got, serverShuttingDown)
			}
		}
	}
	startFor(t, listeners...)
	for _, c := range all {
		c.inbox().awaitUp(t, 1)
		in := room(t)
		mustSubscribe(t, c, subscription{Filter: in, QoS: 1})
		mustPublish(t, c, text(in, 1, "back"))
		if got := payloads(c.inbox().take(t, 1)); got != "back" {
			t.Errorf("to %v came %q", c.kind, got)
		}
	}
}

func TestServe_PageSeesGoingAwayAtShutdown(t *testing.T) {
	t.Parallel()
	b := startFor(t, "--ws", "127.0.0.1:0")
	d, page := openPage(t, "localhost")
	name, in := room(t), newInbox()
	d.listen(name, in)
	connect := []byte("\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00")
	ended := make(chan error, 1)
	var got dialed
	go func() {
		how := map[string]any{"page": page, "url": b.ws, "protocols": []string{"mqtt"}, "name": name, "packet": connect}
		ended <- d.call("", "dial", how, &got)
	}()
	in.awaitUp(t, 1) // CONNACK
	if err := b.Stop(); err != nil {
		t.Fatalf("after SIGTERM: %v", err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got.Code != websocket.CloseGoingAway {
		t.Errorf("the socket ended with %+v", got)
	}
}

// Pings go out every 25 s by default, so only here do clients of the other
// tests meet one. paho for Python, 1.6 and 2.1, answers with a pong that is not
// masked, against RFC 6455 section 5.3.
func TestServe_ServerPingsDisturbNoClient(t *testing.T) {
	b := startFor(t, "--ws", "127.0.0.1:0", "--ws-ping", "1s")
	eachKind(t, func(t *testing.T, k kind) {
		in := room(t)
		c, _ := k.dial(t, setup{URL: b.ws})
		mustSubscribe(t, c, subscription{Filter: in, QoS: 1})
		time.Sleep(4 * time.Second)
		mustPublish(t, c, text(in, 1, "still there"))
		c.inbox().take(t, 1)
		if n := c.inbox().lost(); n > 0 {
			t.Errorf("the connection was lost %d times", n)
		}
	}, func(k kind) bool { return k.scheme == "ws" })
}
