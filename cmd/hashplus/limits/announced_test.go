package limits

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strings"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// userProperties is n of them, encoded.
func userProperties(n int) (b []byte) {
	for range n {
		b = append(b, 0x26, 0, 1, 'k', 0, 1, 'v')
	}
	return b
}

// withAlias is a PUBLISH with a topic alias.
func withAlias(alias uint16) []byte {
	b := []byte{byte(wire.PUBLISH) << 4, 0, 0, 1, 't', 3, 0x23, 0, 0}
	binary.BigEndian.PutUint16(b[7:], alias)
	b[1] = byte(len(b) - 2)
	return b
}

func TestConnack_AnnouncesTheLimits(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-packet-size=2KiB", "--receive-maximum=3", "--topic-alias-maximum=2", "--max-qos=1",
		"--no-retain-available", "--max-keepalive=60", "--max-session-expiry=100")
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		got := dial(v5).join(lasting(unique("l")), func(c *wire.Connect) { c.KeepAlive = 120 })
		if got.MaximumPacketSize != 2048 || got.ReceiveMaximum != 3 || got.TopicAliasMaximum != 2 || !got.LimitQoS || got.MaximumQoS != 1 ||
			!got.RetainUnavailable || !got.HasServerKeepAlive || got.ServerKeepAlive != 60 || !got.HasSessionExpiry || got.SessionExpiry != 100 {
			t.Errorf("CONNACK %+v", got)
		}
		if got := dial(v5).join(func(c *wire.Connect) { c.KeepAlive, c.SessionExpiry = 30, 50 }); got.HasServerKeepAlive || got.HasSessionExpiry {
			t.Errorf("CONNACK overrides what it need not: %+v", got)
		}
		if got := dial(v5).join(); got.ServerKeepAlive != 60 {
			t.Errorf("no keep alive at all is let in: %+v", got)
		}
		c := dial(v311)
		c.join()
		c.alive()
	})
}

func TestConnack_AnnouncesTheDefaults(t *testing.T) {
	t.Parallel()
	got := serve(t).dialWS(v5).join()
	if got.MaximumPacketSize != 1<<20 || got.ReceiveMaximum != 1024 || got.TopicAliasMaximum != 16 || got.LimitQoS || got.RetainUnavailable || got.HasServerKeepAlive || got.HasSessionExpiry {
		t.Errorf("CONNACK %+v", got)
	}
}

func TestLimits_EndAConnectionThatBreaksThem(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-packet-size=2KiB", "--receive-maximum=3", "--topic-alias-maximum=2", "--no-retain-available",
		"--max-topic-levels=4", "--max-topic-length=32", "--max-user-properties=2")
	low := serve(t, "--max-qos=1", "--topic-alias-maximum=0")
	topic := func(name string) publish { return publish{Topic: []byte(name), Payload: []byte("x")} }
	for _, test := range []struct {
		name    string
		server  *server
		allowed func(c *client) []byte // is fine
		refused func(c *client) []byte // ends the connection
		reason  wire.ReasonCode
		code    uint16
		only5   bool // 3.1.1 has no such limit
	}{
		{
			"packet size", s,
			func(c *client) []byte { return c.encode(publish{Topic: []byte("t"), Payload: make([]byte, 2040)}) },
			func(c *client) []byte { return c.encode(publish{Topic: []byte("t"), Payload: make([]byte, 2060)}) },
			0x95, 1009, false,
		},
		{
			"receive maximum", s,
			func(c *client) []byte {
				return bytes.Join([][]byte{c.encode(publish{QoS: 2, Topic: []byte("t")}), c.encode(publish{QoS: 2, Topic: []byte("t")}), c.encode(publish{QoS: 2, Topic: []byte("t")})}, nil)
			},
			func(c *client) []byte { return c.encode(publish{QoS: 2, Topic: []byte("t")}) },
			0x93, 1008, true,
		},
		{
			"topic alias", s,
			func(c *client) []byte { return withAlias(2) }, func(c *client) []byte { return withAlias(3) },
			0x94, 1008, true,
		},
		{"no topic alias", low, nil, func(c *client) []byte { return withAlias(1) }, 0x94, 1008, true},
		{
			"QoS", low,
			func(c *client) []byte { return c.encode(publish{QoS: 1, Topic: []byte("t")}) },
			func(c *client) []byte { return c.encode(publish{QoS: 2, Topic: []byte("t")}) },
			0x9b, 1008, false,
		},
		{
			"retain", s,
			func(c *client) []byte { return c.encode(topic("t")) },
			func(c *client) []byte { return c.encode(publish{Retain: true, Topic: []byte("t")}) },
			0x9a, 1008, false,
		},
		{
			"topic levels", s,
			func(c *client) []byte { return c.encode(topic("a/b/c/d")) }, func(c *client) []byte { return c.encode(topic("a/b/c/d/e")) },
			0x90, 1008, false,
		},
		{
			"topic length", s,
			func(c *client) []byte { return c.encode(topic(strings.Repeat("a", 32))) },
			func(c *client) []byte { return c.encode(topic(strings.Repeat("a", 33))) },
			0x90, 1008, false,
		},
		{
			"user properties", s,
			func(c *client) []byte { return c.encode(publish{Topic: []byte("t"), Props: userProperties(2)}) },
			func(c *client) []byte { return c.encode(publish{Topic: []byte("t"), Props: userProperties(3)}) },
			0x97, 1008, true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			over(t, test.server, func(t *testing.T, dial func(wire.Version) *client) {
				c := dial(v5)
				c.join()
				if test.allowed != nil {
					c.send(test.allowed(c))
					c.alive()
				}
				c.send(test.refused(c))
				c.ejected(test.reason, test.code)
				if test.only5 {
					return
				}
				c = dial(v311)
				c.join()
				c.send(test.allowed(c))
				c.alive()
				c.send(test.refused(c))
				c.gone(test.code)
			})
		})
	}
}

func TestLimits_RefuseACONNECTThatBreaksThem(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-qos=1", "--no-retain-available", "--max-topic-levels=4", "--max-user-properties=2", "--max-sessions=3")
	will := func(w wire.Will) as {
		w.ExpiryAt = -1
		return func(c *wire.Connect) { c.Will = &w }
	}
	for _, test := range []struct {
		name   string
		as     as
		reason wire.ReasonCode
	}{
		{"QoS of the will", will(wire.Will{Topic: "t", QoS: 2}), 0x9b},
		{"retained will", will(wire.Will{Topic: "t", Retain: true}), 0x9a},
		{"topic of the will", will(wire.Will{Topic: "a/b/c/d/e"}), 0x90},
		{"user properties of the will", will(wire.Will{Topic: "t", Props: userProperties(3)}), 0x97},
		{"user properties", func(c *wire.Connect) { c.UserProperties = make([]wire.UserProperty, 3) }, 0x97},
	} {
		t.Run(test.name, func(t *testing.T) {
			there := *s
			there.t = t
			c := there.dial(v5)
			c.send(c.request(test.as))
			if got := c.accepted(); got.Reason != test.reason {
				t.Errorf("CONNACK %#02x (%v) instead of %#02x", byte(got.Reason), got.Reason, byte(test.reason))
			}
			c.gone(0)
		})
	}
	for range 3 {
		s.dial(v5).join()
	}
	c := s.dial(v5)
	c.send(c.request())
	if got := c.accepted(); got.Reason != wire.QuotaExceeded {
		t.Errorf("a fourth session of three: %v", got.Reason)
	}
}

func TestMaxConnections_OneMoreIsTurnedAwayWithAReason(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-connections=4", "--log-level=debug")
	var all []*client
	for range 2 {
		a, b := s.dial(v5), s.dialWS(v5)
		a.join()
		b.join()
		all = append(all, a, b)
	}
	status, header, body := s.exchange(handshake(s.ws, ""))
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(body, "try again") {
		t.Errorf("%d %v %q", status, header, body)
	}
	if got := untilEnd(t, open(t, s.tcp)); got != "" {
		t.Errorf("TCP got %q", got)
	}
	for _, c := range all {
		c.alive()
	}
	all[0].drop()
	// Those that were turned away may take a moment to go.
	until(t, "there is room for another", func() bool {
		c := s.dial(v5)
		if c.trySend(c.request()) != nil {
			return false
		}
		_, _, err := c.read(patience)
		return err == nil
	})
}

func TestSubscribe_LimitsAreReasonCodes(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-subscriptions=3", "--max-topic-levels=4", "--max-topic-length=32", "--max-qos=1")
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		c := dial(v5)
		c.join()
		got := c.trySubscribe(2, "a", "a/b/c/d/#", strings.Repeat("a", 33), "b", "a", "c", "d", "$share/g/d")
		want := []wire.ReasonCode{1, 0x8f, 0x8f, 1, 1, 1, 0x97, 0x97}
		if !equal(got, want) {
			t.Errorf("SUBACK %x instead of %x", got, want)
		}
		c.alive()
		old := dial(v311)
		old.join()
		if got := old.trySubscribe(2, "a", "b", "c", "d", "a/b/c/d/e"); !equal(got, []wire.ReasonCode{1, 1, 1, 0x80, 0x80}) {
			t.Errorf("SUBACK %x for 3.1.1", got)
		}
	})
}

func equal(a, b []wire.ReasonCode) bool {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestMaxKeepalive_IsEnforced(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-keepalive=1")
	over(t, s, func(t *testing.T, dial func(wire.Version) *client) {
		old := dial(v311)
		old.join() // keep alive 0
		c := dial(v5)
		began := time.Now()
		c.join(func(c *wire.Connect) { c.KeepAlive = 600 })
		c.ejected(wire.KeepAliveTimeout, 1008)
		if took := time.Since(began); took < time.Second {
			t.Errorf("a keep alive of 1 s ended after %v", took)
		}
		old.alive()
	})
}

func TestMaxSessionExpiry_IsEnforced(t *testing.T) {
	t.Parallel()
	s := serve(t, "--max-session-expiry=4") // in which the client has to come back, once
	for _, v := range []wire.Version{v311, v5} {
		id := unique("s")
		c := s.dial(v)
		c.join(lasting(id))
		c.drop()
		c = s.dial(v)
		if !c.join(lasting(id)).SessionPresent {
			t.Errorf("%v: the session did not outlive its connection", v)
		}
		c.drop()
		until(t, "the session ends with its expiry", func() bool {
			time.Sleep(5 * time.Second)
			c := s.dial(v)
			defer c.drop()
			return !c.join(lasting(id)).SessionPresent
		})
	}
}
