package crash

import (
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/broker/wire"
	"hashplus/cmd/hashplus/launch"
)

// until tries something until it is so.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(launch.Patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so within %v: %s", launch.Patience, what)
		}
	}
}

// attempt publishes at QoS 1 on a connection of its own and returns the answer's
// reason; ok is false if none came for a moment.
func (l *lab) attempt(v wire.Version, topic, payload string) (reason wire.ReasonCode, ok bool) {
	l.t.Helper()
	return l.attemptWithin(400*time.Millisecond, v, topic, payload)
}

// mustTake is attempt where a good answer has to come.
func (l *lab) mustTake(v wire.Version, topic, payload string) {
	l.t.Helper()
	if reason, ok := l.attemptWithin(launch.Patience, v, topic, payload); !ok || reason.Failed() {
		l.t.Errorf("a message for %s: answer %v, reason %v", topic, ok, reason)
	}
}

func (l *lab) attemptWithin(wait time.Duration, v wire.Version, topic, payload string) (reason wire.ReasonCode, ok bool) {
	l.t.Helper()
	c := l.client(v, "attempt")
	conn, err := c.net.dial(v)
	if err != nil {
		l.t.Fatal(err)
	}
	c.conn = conn
	defer c.drop()
	hello := &wire.Connect{Version: v, ClientID: "attempt", RequestProblem: true, CleanStart: true}
	c.send(hello.Append(nil))
	if a, err := conn.next(time.Now().Add(launch.Patience)); err != nil || a.reason != wire.Success {
		return 0, false
	}
	o := wire.Outgoing{Version: v, QoS: 1, PacketID: 1, Topic: []byte(topic), Payload: []byte(payload)}
	c.send(appendPublish(nil, &o))
	a, err := conn.next(time.Now().Add(wait))
	if err != nil || a.typ != wire.PUBACK {
		return 0, false
	}
	return a.reason, true
}

// live is a pair of clients without durable state, whose traffic must go on.
type live struct{ pub, sub *client }

func (l *lab) live() live {
	p := live{l.transient(v5, "livePub"), l.transient(v5, "liveSub")}
	p.sub.subscribe(filter("live", 1))
	return p
}

func (p live) check() {
	p.pub.t.Helper()
	p.pub.post(0, "live", "QoS 0")
	p.sub.take("QoS 0", 0)
	p.pub.post(1, "live", "QoS 1")
	p.sub.take("QoS 1", 1)
}

func faults(t *testing.T, test func(t *testing.T, l *lab, breakIt func())) {
	t.Parallel()
	for name, f := range map[string]func(l *lab){
		"apply": func(l *lab) { l.memory().FailApply(errDisk) },
		"wait":  func(l *lab) { l.memory().FailWait(errDisk) },
		"both":  func(l *lab) { l.memory().Fail(errDisk) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			test(t, l, func() { f(l) })
		})
	}
}

// A store that fails acknowledges nothing more. What needs no store goes on.
// When it can be opened again the broker goes on by itself, with all that it
// acknowledged.
func TestStoreFails_NothingIsAcknowledgedAndAllRecovers(t *testing.T) {
	faults(t, func(t *testing.T, l *lab, breakIt func()) {
		sub := l.away(v5, "sub", filter("a/+", 1))
		pub := l.transient(v5, "pub")
		for _, m := range []string{"1", "2", "3"} {
			pub.post(1, "a/b", m)
		}
		live := l.live()
		live.check()
		l.fail()
		breakIt()
		id := pub.put(wire.Outgoing{QoS: 1}, "a/b", "the commit of this one fails")
		if p, err := pub.conn.next(deadline(500)); err == nil && p.typ == wire.PUBACK && !p.reason.Failed() {
			t.Errorf("%v for message %d, which was not stored", p, id)
		}
		until(t, "durable publishes of version 5 are refused with 0x97", func() bool {
			reason, ok := l.attempt(v5, "a/b", "refused")
			if ok && !reason.Failed() {
				t.Fatalf("a message is acknowledged that can't be stored")
			}
			return ok && reason == wire.QuotaExceeded
		})
		if reason, ok := l.attempt(v311, "a/b", "refused"); ok {
			t.Errorf("version 3.1.1 gets an acknowledgement: %v", reason)
		}
		l.mustTake(v5, "nobody", "x")
		live.check()
		l.mend()
		until(t, "durable publishes are taken again", func() bool {
			reason, ok := l.attempt(v5, "a/b", "after")
			return ok && !reason.Failed()
		})
		live.check()
		sub.resume()
		for _, m := range []string{"1", "2", "3"} {
			sub.take(m, 1)
		}
		for { // messages that were refused may have been stored after all, before the last
			p := sub.expect(wire.PUBLISH)
			sub.finish(p)
			if string(p.publish.Payload) == "after" {
				break
			}
		}
	})
}

// The QoS 2 state of both directions is what was acknowledged.
func TestStoreFails_QoS2StaysExactlyOnce(t *testing.T) {
	faults(t, func(t *testing.T, l *lab, breakIt func()) {
		sub, pub := l.client(v5, "sub"), l.client(v5, "pub")
		sub.renew()
		sub.subscribe(filter("a", 2))
		pub.renew()
		received := pub.put(wire.Outgoing{QoS: 2}, "a", "received")
		pub.answer(wire.PUBREC, received)
		out := sub.message("received", 2)
		l.fail()
		breakIt()
		lost := pub.put(wire.Outgoing{QoS: 2}, "a", "not received")
		if p, err := pub.conn.next(deadline(300)); err == nil && p.typ == wire.PUBREC && !p.reason.Failed() {
			t.Errorf("%v for what was not stored", p)
		}
		if p, err := sub.conn.next(deadline(100)); err == nil && p.typ == wire.PUBLISH {
			t.Errorf("%v leaves without a commit", p)
		}
		l.mend()
		// Clients that were disconnected come back; others do so as well.
		pub.drop()
		sub.drop()
		back := func(c *client) {
			until(t, c.id+" has its session again", func() bool {
				c.dial()
				a, err := c.conn.next(deadline(2000))
				if err == nil && a.typ == wire.CONNACK && !a.reason.Failed() && !a.connack.SessionPresent {
					t.Fatalf("%s: the session is gone", c.id)
				}
				return err == nil && a.typ == wire.CONNACK && !a.reason.Failed()
			})
		}
		back(pub)
		back(sub)
		again := sub.message("received", 2)
		if again.id != out.id || !again.publish.Dup {
			t.Errorf("%v; it was sent with %d", again, out.id)
		}
		sub.finish(again)
		pub.send(appendAck(nil, wire.PUBREL, received))
		pub.answer(wire.PUBCOMP, received)
		pub.put(wire.Outgoing{QoS: 2, PacketID: lost, Dup: true}, "a", "not received")
		pub.answer(wire.PUBREC, lost)
		pub.send(appendAck(nil, wire.PUBREL, lost))
		pub.answer(wire.PUBCOMP, lost)
		sub.take("not received", 2)
		sub.nothing()
	})
}

// Below --min-free durable publishes are refused before the store can fail, and
// taken again when there is space.
func TestLowSpace_RefusesDurablePublishesAndRecovers(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		l := newLabWith(t, broker.Options{MinFree: 1 << 20})
		sub := l.away(v, "sub", filter("a", 1))
		pub := l.transient(v, "pub")
		pub.post(1, "a", "before")
		live := l.live()
		l.memory().SetFree(1<<20 - 1)
		until(t, "durable publishes are refused", func() bool {
			reason, ok := l.attempt(v, "a", "maybe")
			if v == v5 {
				return ok && reason == wire.QuotaExceeded
			}
			return !ok
		})
		live.check()
		l.mustTake(v, "nobody", "x")
		l.memory().SetFree(1 << 30)
		until(t, "durable publishes are taken again", func() bool {
			reason, ok := l.attempt(v, "a", "after")
			return ok && !reason.Failed()
		})
		live.check()
		sub.resume()
		sub.take("before", 1)
		for {
			p := sub.expect(wire.PUBLISH)
			sub.finish(p)
			if string(p.publish.Payload) == "after" {
				break
			}
		}
		// Nothing was lost or made to wait for ever on connections that lived on.
		pub.post(1, "a", "later")
		sub.take("later", 1)
		sub.nothing()
	})
}
