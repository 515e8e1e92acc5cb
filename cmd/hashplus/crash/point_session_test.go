package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// The crash points of sessions and subscriptions.

func TestSUBACK_SubscriptionIsThereAfterACrash(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a/+", 2), filter("b/#", 1))
		b.crash()
		pub.renew()
		pub.post(2, "a/1", "one")
		pub.post(2, "b/1/2", "two")
		pub.post(2, "c", "for nobody")
		sub.resume()
		sub.take("one", 2)
		sub.take("two", 1)
		sub.nothing()
	})
}

func TestSUBACK_ReplacesASubscriptionForGood(t *testing.T) { // [MQTT-3.8.4-3]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a", 2))
		sub.subscribe(filter("a", 1))
		b.crash()
		pub.renew()
		pub.post(2, "a", "lower")
		sub.resume()
		sub.take("lower", 1)
		sub.nothing()
	})
}

func TestSUBACK_MemberOfAShareGroupAfterACrash(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sub, pub := b.client(v5, "sub"), b.client(v5, "pub")
	sub.renew()
	sub.ask(9, filter("$share/crew/a", 1))
	b.crash()
	pub.renew()
	pub.post(1, "a", "job")
	sub.resume()
	if p := sub.take("job", 1); len(p.subIDs) != 1 || p.subIDs[0] != 9 {
		t.Errorf("subscription identifiers %v, not 9", p.subIDs)
	}
	sub.unsubscribe("$share/crew/a")
	b.crash()
	pub.resume()
	pub.post(1, "a", "job for nobody")
	sub.resume()
	// The job may come again: its PUBACK was not answered.
	for p, err := sub.conn.next(deadline(400)); err == nil; p, err = sub.conn.next(deadline(400)) {
		if p.typ != wire.PUBLISH || string(p.publish.Payload) != "job" || !p.publish.Dup {
			t.Error(p)
		}
	}
}

func TestSUBACK_OptionsSurvive(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	sub, pub := b.client(v5, "sub"), b.client(v5, "pub")
	sub.renew()
	sub.ask(11, wire.Subscription{Filter: "no/local", QoS: 1, NoLocal: true})
	sub.ask(12, wire.Subscription{Filter: "as/published", QoS: 1, RetainAsPublished: true})
	sub.ask(13, wire.Subscription{Filter: "plain", QoS: 1})
	sub.ask(268_435_455, wire.Subscription{Filter: "largest", QoS: 1})
	b.crash()
	pub.renew()
	pub.postAs(wire.Outgoing{QoS: 1, Retain: true}, "as/published", "retained")
	pub.postAs(wire.Outgoing{QoS: 1, Retain: true}, "plain", "not so")
	pub.post(1, "largest", "id")
	pub.post(1, "no/local", "from elsewhere")
	sub.resume()
	for _, want := range []struct {
		payload string
		id      uint32
		retain  bool
	}{{"retained", 12, true}, {"not so", 13, false}, {"id", 268_435_455, false}, {"from elsewhere", 11, false}} {
		p := sub.take(want.payload, 1)
		if len(p.subIDs) != 1 || p.subIDs[0] != want.id || p.publish.Retain != want.retain {
			t.Errorf("%v with identifiers %v; want %+v", p, p.subIDs, want)
		}
	}
	sub.post(1, "no/local", "my own")
	sub.nothing()
}

func TestUNSUBACK_SubscriptionIsGoneAfterACrash(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a", 2), filter("b", 2))
		sub.unsubscribe("a")
		b.crash()
		pub.renew()
		pub.post(2, "a", "for nobody")
		pub.post(2, "b", "still")
		sub.resume()
		sub.take("still", 2)
		sub.nothing()
	})
}

func TestCONNACK_SessionIsThereAfterACrash(t *testing.T) { // [MQTT-3.1.2-5] [MQTT-3.2.2-3]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		c := b.client(v, "c")
		c.renew()
		b.crash()
		c.resume()
		b.crash()
		c.resume()
	})
}

func TestCONNACK_CleanStartIsCleanAfterACrash(t *testing.T) { // [MQTT-3.1.2-4]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		sub.renew()
		sub.subscribe(filter("a", 2))
		sub.leave()
		pub.renew()
		pub.post(1, "a", "old")
		sub.renew(clean, expiry(3600))
		b.crash()
		pub.resume()
		pub.post(1, "a", "to nobody")
		if v == v5 { // 3.1.1's clean sessions end with their connection
			sub.resume()
		} else {
			sub.renew()
		}
		sub.nothing()
	})
}

func TestCONNACK_OfASessionThatDoesNotLast(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		c := b.client(v, "c")
		c.renew()
		c.subscribe(filter("a", 1))
		c.leave()
		c.renew(clean, expiry(0))
		c.subscribe(filter("b", 1))
		b.crash()
		c.renew()
		c.post(1, "a", "x")
		c.post(1, "b", "x")
		c.nothing()
	})
}

// The second of two connections has the session; after a crash, too.
func TestTakeOver_AtTheMomentOfACrash(t *testing.T) { // [MQTT-3.1.4-3]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		one, two, pub := b.client(v, "c"), b.client(v, "c"), b.client(v, "pub")
		one.renew()
		one.subscribe(filter("a", 2))
		pub.renew()
		pub.post(2, "a", "first")
		first := one.message("first", 2)
		two.resume()
		b.crash()
		// Both come back at once, as soon as the broker is there.
		var all []*client
		for range 8 {
			c := b.client(v, "c")
			c.dial()
			all = append(all, c)
		}
		for _, c := range all {
			// Let in, and taken over by another, or never let in at all.
			if p, err := c.conn.next(deadline(20_000)); err == nil && (p.typ != wire.CONNACK || !p.connack.SessionPresent) {
				t.Fatal(p)
			}
		}
		// The last one gets the message, under its identifier.
		last := b.client(v, "c")
		last.resume()
		p := last.message("first", 2)
		if p.id != first.id || !p.publish.Dup {
			t.Errorf("%v; the identifier was %d", p, first.id)
		}
		last.finish(p)
		pub.resume()
		pub.post(2, "a", "second")
		last.take("second", 2)
		last.nothing()
	})
}

func TestDISCONNECT_EndsASessionForGood(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	c := b.client(v5, "c")
	c.renew()
	c.subscribe(filter("a", 1))
	end := wire.Disconnect{HasSessionExpiry: true}
	c.send(end.Append(nil))
	c.gone()
	// Nothing answers a DISCONNECT; a later commit says that its own was made.
	pause(1500)
	c2 := b.client(v5, "other")
	c2.renew()
	b.crash()
	c.renew()
	c2.resume()
}

// A session belongs to the user who made it, after a crash as before.
func TestSession_IsBoundToItsUser(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "passwords")
	for _, name := range []string{"alice", "mallory"} {
		cmd := launch.Command(program, "passwd", "--pbkdf2", "--iterations=1000", file, name)
		cmd.Stdin = strings.NewReader("secret of " + name + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("passwd: %v\n%s", err, out)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	b := newBed(t, "--password-file="+file)
	c := b.client(v5, "c")
	alice, mallory := user("alice", "secret of alice"), user("mallory", "secret of mallory")
	c.renew(alice)
	c.subscribe(filter("a", 1))
	b.crash()
	for _, start := range []as{func(*wire.Connect) {}, clean} {
		c.dial(mallory, start)
		if a := c.expect(wire.CONNACK); a.reason != wire.NotAuthorized {
			t.Errorf("another user gets %v", a)
		}
		c.drop()
	}
	c.resume(alice)
	other := b.client(v5, "other")
	other.renew(alice)
	other.post(1, "a", "mine")
	c.take("mine", 1)
}

// What the broker told a client to be reached at still reaches it.
func TestReplyPrefix_Survives(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	c, pub := b.client(v5, "c"), b.client(v5, "pub")
	ask := func(h *wire.Connect) { h.RequestResponse = true }
	prefix := c.connect(ask).ResponseInformation
	if prefix == "" {
		t.Fatal("no Response Information")
	}
	c.subscribe(filter(prefix+"+", 1))
	b.crash()
	pub.renew()
	pub.post(1, prefix+"1", "answer")
	a := c.connect(ask)
	if !a.SessionPresent || a.ResponseInformation != prefix {
		t.Errorf("session present %v, Response Information %q, was %q", a.SessionPresent, a.ResponseInformation, prefix)
	}
	c.take("answer", 1)
	c.subscribe(filter(prefix+"more/#", 1)) // it is still its own
	d := b.client(v311, "d")
	d.renew()
	d.subscribe(filter("$reply/self", 0))
	told := string(d.expect(wire.PUBLISH).publish.Payload)
	d.subscribe(filter(told+"#", 1))
	b.crash()
	pub.resume()
	pub.post(1, told+"x", "for d")
	d.resume()
	d.take("for d", 1)
}

// Many sessions, each with what is its own.
func TestRecovery_OfManySessions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	const n = 200
	pub := b.client(v5, "pub")
	for i := range n {
		c := b.client([]wire.Version{v311, v5}[i%2], fmt.Sprint("c", i))
		c.renew()
		c.subscribe(filter(fmt.Sprint("to/", i), 1))
		c.drop()
	}
	pub.renew()
	for i := range n {
		pub.post(1, fmt.Sprint("to/", i), fmt.Sprint("for ", i))
	}
	b.crash()
	for i := range n {
		c := b.client([]wire.Version{v311, v5}[i%2], fmt.Sprint("c", i))
		c.resume()
		c.take(fmt.Sprint("for ", i), 1)
		c.drop()
	}
}
