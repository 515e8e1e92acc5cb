package crash

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"hashplus/broker/wire"
)

func pause(ms int) { time.Sleep(time.Duration(ms) * time.Millisecond) }

// The time that the broker is down counts.

// A session of a client that does not come back ends, though it was connected
// when the broker died.
func TestSessionExpiry_RunsFromTheCrash(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	c := b.client(v5, "c")
	c.renew(expiry(1))
	b.crash()
	pause(2500)
	c.renew()
}

func TestMessageExpiry_CountsTheTimeThatTheBrokerIsDown(t *testing.T) { // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
	t.Parallel()
	b := newBed(t)
	sub, pub := b.client(v5, "sub"), b.client(v5, "pub")
	sub.renew()
	sub.subscribe(filter("a/#", 2))
	sub.leave()
	pub.renew()
	for _, qos := range []byte{1, 2} {
		for _, seconds := range []uint32{2, 1000} {
			set := wire.PassProperties{HasExpiry: true, Expiry: seconds}
			props, at := set.Append(nil)
			pub.postAs(wire.Outgoing{QoS: qos, Retain: qos == 1, Props: props, ExpiryAt: at, Expiry: seconds}, fmt.Sprint("a/", seconds), fmt.Sprint(seconds))
		}
	}
	b.kill()
	pause(3000)
	b.start()
	sub.resume()
	for _, qos := range []byte{1, 2} {
		p := sub.take("1000", qos)
		if e := p.publish.Expiry; p.publish.ExpiryAt < 0 || e > 997 || e < 900 {
			t.Errorf("%v: %d s are left of 1000 after 3 s", p, e)
		}
	}
	sub.nothing()
	// The same for what is retained.
	sub.subscribe(filter("+/+", 1))
	p := sub.take("1000", 1)
	if e := p.publish.Expiry; !p.publish.Retain || e > 997 || e < 900 {
		t.Errorf("retained %v: %d s are left of 1000 after 3 s", p, e)
	}
	sub.nothing()
}

func TestWill_DueWhileTheBrokerWasDownIsSent(t *testing.T) { // [MQTT-3.1.2-8]
	t.Parallel()
	b := newBed(t)
	sub, c := b.client(v5, "sub"), b.client(v5, "c")
	sub.renew()
	sub.subscribe(filter("will", 1))
	sub.leave()
	set := wire.PassProperties{ContentType: "obituary", UserProperties: []wire.UserProperty{{Key: "k", Value: "v"}}}
	props, _ := set.Append(nil)
	c.renew(will(wire.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, Retain: true, Delay: 2, Props: props, ExpiryAt: -1}))
	c.drop()
	pause(500)
	b.kill()
	pause(2500)
	b.start()
	sub.resume()
	p := sub.take("gone", 1)
	if got := wire.ReadPassProperties(p.publish.Props); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", set) {
		t.Errorf("properties %+v, set were %+v", got, set)
	}
	sub.nothing() // it comes once
	b.crash()
	sub.resume()
	sub.nothing()
	sub.subscribe(filter("+", 1)) // it was retained
	sub.take("gone", 1)
}

func TestWill_OfAClientThatWasConnectedWhenTheBrokerDied(t *testing.T) {
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, c := b.client(v, "sub"), b.client(v, "c")
		sub.renew()
		sub.subscribe(filter("will", 1))
		c.renew(will(wire.Will{Topic: "will", Payload: []byte("gone"), QoS: 1, ExpiryAt: -1}))
		b.crash()
		sub.resume()
		sub.take("gone", 1)
		sub.nothing()
	})
}

func TestWill_IsNotSentIfTheClientIsBackInTime(t *testing.T) { // [MQTT-3.1.3-9]
	t.Parallel()
	b := newBed(t)
	sub, c, d := b.client(v5, "sub"), b.client(v5, "c"), b.client(v5, "d")
	sub.renew()
	sub.subscribe(filter("will/+", 1))
	bequest := func(name string, delay uint32) as {
		return will(wire.Will{Topic: "will/" + name, Payload: []byte(name), QoS: 1, Delay: delay, ExpiryAt: -1})
	}
	c.renew(bequest("c", 8)) // in which the broker has to be there again
	d.renew(bequest("d", 1))
	d.leave() // in order: its will is gone
	pause(300)
	b.crash()
	c.resume()
	sub.resume()
	pause(8500)
	sub.nothing()
}

// What is retained at QoS 0 is not acknowledged, and survives an end in order.
func TestRetained_AtQoS0SurvivesAStop(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	pub, sub := b.client(v5, "pub"), b.client(v5, "sub")
	pub.renew()
	pub.put(wire.Outgoing{Retain: true}, "r", "0")
	pub.leave()
	b.restart()
	sub.renew()
	sub.subscribe(filter("r", 1))
	sub.take("0", 0)
}

func TestSessionExpiry_CountsTheTimeThatTheBrokerIsDown(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	short, long, pub := b.client(v5, "short"), b.client(v5, "long"), b.client(v5, "pub")
	short.renew(expiry(2))
	short.subscribe(filter("a", 1))
	short.leave()
	long.renew(expiry(600))
	long.leave()
	pause(300) // nothing answers a DISCONNECT
	pub.renew()
	pub.post(1, "a", "too late")
	b.kill()
	pause(2500)
	b.start()
	short.renew()
	short.nothing()
	long.resume()
}

// A session whose client was connected when the broker died is not older than
// the crash.
func TestSessionExpiry_OfAClientThatWasConnected(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	c := b.client(v5, "c")
	c.renew(expiry(8)) // in which the broker has to be there again
	pause(8500)
	b.crash()
	c.resume(expiry(8))
}

func TestRetained_SurvivesACrash(t *testing.T) { // [MQTT-3.3.1-5]
	versions(t, func(t *testing.T, v wire.Version) {
		b := newBed(t)
		sub, pub := b.client(v, "sub"), b.client(v, "pub")
		pub.renew()
		kept := func(topic, payload string) { pub.postAs(wire.Outgoing{QoS: 1, Retain: true}, topic, payload) }
		large := string(bytes.Repeat([]byte("large"), 50_000))
		kept("r/1", "old")
		kept("r/1", "new")
		kept("r/2", "cleared")
		kept("r/2", "")
		kept("r/3", large)
		pub.postAs(wire.Outgoing{QoS: 2, Retain: true}, "r/4", "QoS 2")
		b.crash()
		sub.renew()
		sub.subscribe(filter("r/+", 2))
		got := map[string]string{}
		var all []*packet
		for range 3 {
			p := sub.expect(wire.PUBLISH)
			if !p.publish.Retain {
				t.Errorf("%v does not say that it was retained", p)
			}
			got[string(p.publish.Topic)] = string(p.publish.Payload)
			all = append(all, p)
		}
		for _, p := range all {
			sub.finish(p)
		}
		want := map[string]string{"r/1": "new", "r/3": large, "r/4": "QoS 2"}
		for topic, payload := range want {
			if got[topic] != payload {
				t.Errorf("%s is %.20q, not %.20q", topic, got[topic], payload)
			}
		}
		sub.nothing()
		pub.resume()
		kept("r/1", "")
		b.crash()
		other := b.client(v, "other")
		other.renew()
		other.subscribe(filter("r/1", 1))
		other.nothing()
	})
}
