package vulnerabilities

import (
	"fmt"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// moment is how long a test waits for what must not come.
const moment = 300 * time.Millisecond

// mochi, moquette: a will was published to a topic that its client may not
// write.
func TestMochi503_WillBypassesTheACL(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic write open/#\nuser bob\ntopic read #\n")
	bob := b.join(who{user: "bob"})
	bob.subscribe("#", 0)
	for _, topic := range []string{"closed", "open", "opened/x", "closed/open/x"} {
		want := byte(0x87)
		if topic == "open" {
			want = 0 // open/# covers it
		}
		c := b.dial()
		if got := c.knock(who{user: "alice", will: &will{topic: topic, payload: "boo", retain: true}}); got != want {
			t.Errorf("a will to %q: CONNACK %#02x", topic, got)
		}
		c.drop()
	}
	if m := bob.message(); m.topic != "open" {
		t.Errorf("a will to %q", m.topic)
	}
	bob.silent(moment)
	// A will to no topic at all is none.
	for _, topic := range []string{"open/#", "open/+", "#", "open/\x00"} {
		c := b.dial()
		c.send(who{id: "w", user: "alice", will: &will{topic: topic, payload: "boo"}}.connect())
		if reason := c.ended(); reason != 0x81 && reason != 0x90 {
			t.Errorf("a will to %q: %#02x", topic, reason)
		}
	}
}

func TestMoquette689_WillBypassesTheACLIn311(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic write open/#\nuser bob\ntopic read #\n")
	bob := b.join(who{user: "bob"})
	bob.subscribe("#", 0)
	c := b.dial()
	if got := c.knock(who{v3: true, user: "alice", will: &will{topic: "closed", payload: "boo"}}); got != 5 {
		t.Errorf("CONNACK %d", got)
	}
	c.drop()
	bob.silent(moment)
}

// NanoMQ: the will of a client that was not let in was published.
func TestNanoMQ2330_WillOfARefusedClient(t *testing.T) {
	t.Parallel()
	b := guarded(t, "pattern readwrite #\n")
	bob := b.join(who{user: "bob"})
	bob.subscribe("#", 0)
	for name, w := range map[string]who{
		"wrong password": {user: "alice", password: "wrong"},
		"unknown user":   {user: "mallory"},
		"no user":        {},
		"3.1.1":          {v3: true, user: "alice", password: "wrong"},
	} {
		w.id, w.will = unique("refused"), &will{topic: "boo", payload: name, retain: true}
		c := b.dial()
		if got := c.knock(w); got == 0 {
			t.Errorf("%s: let in", name)
		}
		c.drop()
		// One that breaks off before it is answered.
		c = b.dial()
		c.send(w.connect())
		c.drop()
	}
	bob.silent(moment)
	c := b.join(who{user: "alice"})
	c.subscribe("#", 0) // nothing is retained either
	c.silent(moment)
	// Somebody else's session is left alone by whoever cannot log in.
	mine := who{id: "mine", user: "alice", will: &will{topic: "boo", payload: "taken over"}}
	alice := b.join(mine)
	mine.password = "wrong"
	if got := b.dial().knock(mine); got == 0 {
		t.Error("let in with a wrong password")
	}
	alice.alive()
	bob.silent(moment)
}

// mosquitto: a will to $CONTROL was carried out without a right to it. There is
// no $CONTROL here: it is a name that a rule for # does not reach.
func TestMosquitto_WillToControl(t *testing.T) {
	t.Parallel()
	b := guarded(t, "pattern readwrite #\n")
	for _, topic := range []string{"$CONTROL/dynamic-security/v1", "$SYS/broker/version", "$SYS", "$share/g/t", "$reply/self", "$anything"} {
		c := b.dial()
		if got := c.knock(who{user: "alice", will: &will{topic: topic, payload: "{}"}}); got != 0x87 {
			t.Errorf("a will to %q: CONNACK %#02x", topic, got)
		}
		c.drop()
		d := b.join(who{user: "alice"})
		d.send(d.publication(topic, "{}", 1, 1, 0))
		p, err := d.read(patience)
		if refused := err == nil && p.Type == codec.PUBACK && len(p.Body) > 2 && p.Body[2] >= 0x80 || err == nil && p.Type == codec.DISCONNECT; !refused {
			t.Errorf("a message to %q is not refused: % x, %v", topic, p.Body, err)
		}
	}
	// Without rules the broker keeps what is its own, too.
	free := open(t)
	for _, topic := range []string{"$SYS/broker/version", "$SYS", "$share/g/t"} {
		c := free.dial()
		if got := c.knock(who{will: &will{topic: topic, payload: "x"}}); got < 0x80 {
			t.Errorf("a will to %q: CONNACK %#02x", topic, got)
		}
	}
}

// NATS: what was retained, or waited in a session, came although a narrower
// rule denied it.
func TestNATS2026_26_ReplayBypassesADeny(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite #\nuser bob\ntopic read #\ntopic deny secret/#\n")
	alice := b.join(who{user: "alice"})
	alice.send(packet(0x31, "secret/kept", props(), []byte("x")))
	alice.send(packet(0x31, "plain/kept", props(), []byte("x")))
	alice.alive()
	w := who{id: "bobs", user: "bob", resume: true, expiry: 600}
	for _, filter := range []string{"#", "+/kept", "+/#"} {
		bob := b.join(w)
		bob.subscribe(filter, 2)
		if m := bob.message(); m.topic != "plain/kept" {
			t.Errorf("%q got %q", filter, m.topic)
		}
		bob.silent(moment)
		bob.drop()
	}
	bob := b.join(w)
	if code := bob.ask("secret/kept", 1); code < 0x80 {
		t.Errorf("SUBSCRIBE secret/kept: %#02x", code)
	}
	alice.publish("secret/live", "x", 1, 0)
	bob.silent(moment)
	bob.drop()
	alice.publish("secret/queued", "x", 1, 0)
	alice.publish("plain/queued", "x", 1, 0)
	bob = b.join(w)
	if m := bob.message(); m.topic != "plain/queued" {
		t.Errorf("the queue held %q", m.topic)
	}
	bob.silent(moment)
	// And by a will.
	c := b.join(who{user: "alice", will: &will{topic: "secret/will", payload: "x", qos: 1}})
	c.drop()
	bob.silent(moment)
}

// mochi: what was on the way to one user was sent again to another one who came
// with the same client identifier.
func TestMochi504_ResendToAnotherUser(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite secret/#\nuser bob\ntopic readwrite open/#\n")
	w := who{id: "shared", user: "alice", resume: true, expiry: 600}
	alice := b.join(w)
	alice.subscribe("secret/#", 1)
	pub := b.join(who{user: "alice"})
	pub.publish("secret/1", "in flight", 1, 0)
	alice.message() // and does not acknowledge it
	alice.drop()
	pub.publish("secret/2", "queued", 1, 0)
	w.user = "bob"
	for _, resume := range []bool{true, false} {
		w.resume = resume
		bob := b.dial()
		if got := bob.knock(w); got != 0x87 {
			t.Errorf("resume %v: bob is let into alice's session: %#02x", resume, got)
		}
		if p, err := bob.read(moment); err == nil {
			t.Errorf("and gets a packet of type %d", p.Type)
		}
	}
	w.user, w.resume = "alice", true
	alice = b.join(w)
	for _, want := range []string{"in flight", "queued"} {
		if m := alice.message(); m.payload != want {
			t.Errorf("alice gets %q instead of %q", m.payload, want)
		}
	}
}

// NATS: a deny did not hold for a subscription that names a queue group.
func TestNATS2026_18_ShareBypassesADeny(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite #\nuser bob\ntopic read #\ntopic deny secret/#\nuser carol\ntopic read open/#\n")
	bob := b.join(who{user: "bob"})
	for _, filter := range []string{"secret/#", "secret/x", "secret/+", "$share/g/secret/#", "$share/secret/secret/x", "$share/g/secret/+/y"} {
		if code := bob.ask(filter, 1); code < 0x80 {
			t.Errorf("%q: %#02x", filter, code)
		}
	}
	bob.subscribe("$share/g/#", 1)
	alice := b.join(who{user: "alice"})
	for range 10 {
		alice.publish("secret/x", "x", 1, 0)
	}
	bob.silent(moment)
	alice.publish("open/x", "x", 1, 0)
	if m := bob.message(); m.topic != "open/x" {
		t.Errorf("a message of %q", m.topic)
	}
	carol := b.join(who{user: "carol"})
	for filter, ok := range map[string]bool{
		"$share/g/open/#": true, "$share/g/open": true, "$share/g/open/x": true,
		"$share/open/#": false, "$share/open/secret": false, "$share/g/#": false, "$share/g/+/x": false,
	} {
		if code := carol.ask(filter, 1); (code < 0x80) != ok {
			t.Errorf("%q: %#02x", filter, code)
		}
	}
	// Nobody takes part in another's group without the right to its filter,
	// and a member without it gets no share.
	d := b.join(who{user: "alice"})
	d.subscribe("$share/g/#", 1)
	for range 10 {
		alice.publish("secret/y", "x", 1, 0)
	}
	for range 10 {
		m := d.message()
		d.send(ack(codec.PUBACK, m.id))
		if m.topic != "secret/y" {
			t.Errorf("a message of %q", m.topic)
		}
	}
}

// NATS: rules did not hold below $MQTT. No name is outside of the rules here.
func TestCVE_2026_33217_NamesOutsideOfTheRules(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite #\ntopic readwrite +/#\n", "--sys-interval=100ms")
	alice := b.join(who{user: "alice"})
	for _, filter := range []string{"$MQTT/#", "$SYS/#", "$SYS/broker/version", "$JS/#", "$queue/x", "$share/g/$SYS/#", "$share/g/$MQTT/#", "$delayed/1/x", "$exclusive/x", "$local/x"} {
		if code := alice.ask(filter, 1); code < 0x80 {
			t.Errorf("%q is granted", filter)
		}
	}
	for _, topic := range []string{"$MQTT/x", "$JS/x", "$queue/x", "$delayed/1/x", "$local/x"} {
		if reason := alice.publish(topic, "x", 1, 0); reason != 0x87 {
			t.Errorf("a message to %q: %#02x", topic, reason)
		}
	}
	nobody := b.dial()
	if got := nobody.knock(who{}); got == 0 {
		t.Error("a client without a name is let in")
	}
}

// go-auth and others: a filter that is wider than its rule was let through,
// since only single topics were looked up.
func TestGoAuth_FilterWiderThanItsRule(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic read a/+/c\ntopic read d/#\nuser bob\ntopic readwrite #\n")
	alice := b.join(who{user: "alice"})
	for filter, ok := range map[string]bool{
		"a/b/c": true, "a/+/c": true, "d": true, "d/#": true, "d/+/x": true, "d/x/#": true,
		"#": false, "+": false, "+/#": false, "a/#": false, "a/+/+": false, "a/b/+": false, "a/b/#": false,
		"a/+/c/#": false, "+/b/c": false, "a": false, "a/b": false, "a/b/c/d": false, "+/x": false, "d+": false, "dd/#": false,
		"a//c": true, "/a/b/c": false, "A/b/c": false, "a/b/C": false,
	} {
		if code := alice.ask(filter, 0); (code < 0x80) != ok {
			t.Errorf("%q: %#02x", filter, code)
		}
	}
}

// A broker of 2026 let anybody subscribe to everything, whatever its rules.
func TestCVE_2026_49186_SubscribeIsNotChecked(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite mine/#\nuser bob\ntopic readwrite #\n")
	for _, v3 := range []bool{false, true} {
		alice := b.join(who{v3: v3, user: "alice"})
		for _, filter := range []string{"#", "+", "+/+", "+/#", "/#", "other/#", "other"} {
			if code := alice.ask(filter, 0); code < 0x80 {
				t.Errorf("3.1.1 %v: %q is granted with %d", v3, filter, code)
			}
		}
		bob := b.join(who{user: "bob"})
		bob.publish("other", "x", 1, 0)
		alice.silent(moment)
		// Nor may it write there.
		alice.send(alice.publication("other", "x", 1, 1, 0))
		p := alice.await(codec.PUBACK)
		if !v3 && (len(p.Body) < 3 || p.Body[2] != 0x87) {
			t.Errorf("PUBACK % x", p.Body)
		}
		bob.subscribe("other", 0)
		alice.send(alice.publication("other", "x", 0, 0, 0))
		bob.silent(moment)
	}
}

// mochi's ledger: a rule for a/b granted a/b/c/d as well.
func TestMochi_RuleIsNotAPrefix(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite a/b\nuser bob\ntopic readwrite #\n")
	alice := b.join(who{user: "alice"})
	for _, topic := range []string{"a", "a/", "a/bb", "a/b/", "a/b/c", "a/b/c/d"} {
		if reason := alice.publish(topic, "x", 1, 0); reason != 0x87 {
			t.Errorf("%q: PUBACK %#02x", topic, reason)
		}
		if code := alice.ask(topic, 0); code < 0x80 {
			t.Errorf("%q: SUBACK %#02x", topic, code)
		}
	}
	if reason := alice.publish("a/b", "x", 1, 0); reason >= 0x80 {
		t.Errorf("a/b: %#02x", reason)
	}
}

// mochi's ledger: rules were a map, so that which one decided was left to
// chance. A deny wins wherever it stands.
func TestMochi_DenyWinsInAnyOrder(t *testing.T) {
	t.Parallel()
	for i, rules := range []string{
		"user alice\ntopic deny #\ntopic readwrite a/b\n",
		"user alice\ntopic readwrite a/b\ntopic deny #\n",
		"user alice\ntopic readwrite a/b\nuser bob\ntopic read #\nuser alice\ntopic deny a/+\n",
		"pattern deny a/b\nuser alice\ntopic readwrite a/b\n",
		"user alice\ntopic readwrite a/b\npattern deny %u/../b\npattern deny a/#\n",
	} {
		b := guarded(t, rules)
		for range 5 {
			alice := b.join(who{user: "alice"})
			if reason := alice.publish("a/b", "x", 1, 0); reason != 0x87 {
				t.Errorf("rules %d: PUBACK %#02x", i, reason)
			}
			if code := alice.ask("a/b", 0); code < 0x80 {
				t.Errorf("rules %d: SUBACK %#02x", i, code)
			}
			alice.drop()
		}
	}
}

// mosquitto: a client whose name or identifier is a wildcard widened the
// patterns that they were put into.
func TestCVE_2017_7650_WildcardsInNames(t *testing.T) {
	t.Parallel()
	b := guarded(t, "pattern readwrite id/%c/x\npattern readwrite user/%u/x\npattern readwrite %c\nuser bob\ntopic readwrite #\n")
	bob := b.join(who{user: "bob"})
	for _, user := range []string{"+", "+#", "a/b"} {
		for _, id := range []string{"+", "#", "a/b", "+/+", "$SYS/#", "id/#"} {
			c := b.dial()
			if c.knock(who{id: id, user: user}) != 0 {
				continue // refused altogether: as good
			}
			for _, filter := range []string{"id/+/x", "id/#", "user/+/x", "user/#", "#", "+", "+/+", "id/bob/x", "user/bob/x", "id/a/b/x", "user/a/b/x", "$SYS/#", "a/b", "id/other/x"} {
				if code := c.ask(filter, 0); code < 0x80 {
					t.Errorf("user %q with identifier %q is granted %q", user, id, filter)
				}
			}
			for _, topic := range []string{"id/bob/x", "user/bob/x", "a/b", "id/a/b/x"} {
				if reason := c.publish(topic, "x", 1, 0); reason < 0x80 {
					t.Errorf("user %q with identifier %q may write %q", user, id, topic)
				}
			}
			bob.publish("id/any/x", "x", 0, 0)
			c.drop()
		}
	}
	// The patterns themselves work.
	alice := b.join(who{id: "al", user: "alice"})
	alice.subscribe("id/al/x", 0)
	alice.subscribe("user/alice/x", 0)
	alice.subscribe("al", 0)
}

// mosquitto: a plugin could change a topic after it had been checked. There are
// no such plugins here; the one thing that changes a topic is its alias.
func TestMosquitto3670_AliasIsResolvedBeforeTheACL(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite open\nuser bob\ntopic read #\n")
	bob := b.join(who{user: "bob"})
	bob.subscribe("#", 0)
	alice := b.join(who{user: "alice"})
	if reason := alice.publish("open", "1", 1, 1); reason >= 0x80 {
		t.Fatalf("PUBACK %#02x", reason)
	}
	if reason := alice.publish("closed", "2", 1, 1); reason != 0x87 {
		t.Errorf("PUBACK %#02x", reason)
	}
	// The alias now names a topic that is denied, or what it named before.
	alice.send(alice.publication("", "3", 1, alice.id(), 1))
	p, err := alice.read(patience)
	if err != nil {
		t.Fatal(err)
	}
	denied := p.Type == codec.PUBACK && len(p.Body) > 2 && p.Body[2] == 0x87
	if m := bob.message(); m.topic != "open" || m.payload != "1" {
		t.Errorf("bob got %+v", m)
	}
	if denied {
		bob.silent(moment)
	} else if m := bob.message(); m.topic != "open" {
		t.Errorf("bob got %+v", m)
	}
}

// mosquitto: a MESSAGE_OUT plugin could change a topic after it had been
// checked. On its way out an alias stands for a topic that was.
func TestMosquitto3671_OutgoingAliasIsOfWhatWasChecked(t *testing.T) {
	t.Parallel()
	b := guarded(t, "user alice\ntopic readwrite #\nuser bob\ntopic read #\ntopic deny closed/#\n")
	bob := b.join(who{user: "bob", aliases: 2})
	bob.subscribe("#", 0)
	alice := b.join(who{user: "alice"})
	for i := range 30 {
		alice.publish(fmt.Sprintf("closed/%d", i%3), "no", 0, uint16(1+i%16))
		alice.publish(fmt.Sprintf("open/%d", i%4), fmt.Sprint(i%4), 0, uint16(1+i%16))
	}
	for range 30 {
		if m := bob.message(); m.topic != "open/"+m.payload {
			t.Fatalf("bob got %+v", m)
		}
	}
	bob.silent(moment)
}
