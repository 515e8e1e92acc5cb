package vulnerabilities

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// changing starts a guarded broker, and returns what puts other rules in force.
func changing(t *testing.T, rules string) (b *broker, change func(rules string)) {
	t.Helper()
	path := file(t, rules)
	b = serve(t, "--acl="+path, "--password-file="+passwords(t, "alice", "bob", "carol"))
	return b, func(rules string) {
		t.Helper()
		before := strings.Count(b.Log.String(), "msg=reloaded")
		if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); strings.Count(b.Log.String(), "msg=reloaded") == before; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the rules are not reloaded\n%s", b.Log.String())
			}
		}
	}
}

const (
	aliceWrites = "user alice\ntopic readwrite #\n"
	bobReads    = "user bob\ntopic read #\n"
	bobReadsNot = bobReads + "topic deny secret/#\n"
)

// mosquitto: what was retained came to whoever subscribed, though the rights to
// it had been taken away.
func TestCVE_2018_12546_RetainedBehindARevocation(t *testing.T) {
	t.Parallel()
	b, change := changing(t, aliceWrites+bobReads)
	alice := b.join(who{user: "alice"})
	alice.send(packet(0x31, "secret/1", props(), []byte("x")))
	alice.send(packet(0x31, "plain/1", props(), []byte("x")))
	alice.alive()
	w := who{id: "bobs", user: "bob", resume: true, expiry: 600}
	bob := b.join(w)
	bob.subscribe("#", 1)
	for range 2 {
		bob.message()
	}
	change(aliceWrites + bobReadsNot)
	for _, filter := range []string{"#", "+/1", "+/#"} {
		bob.subscribe(filter, 1)
		if m := bob.message(); m.topic != "plain/1" {
			t.Errorf("%q got %q", filter, m.topic)
		}
		bob.silent(moment)
	}
	if code := bob.ask("secret/1", 1); code < 0x80 {
		t.Errorf("SUBSCRIBE secret/1: %#02x", code)
	}
	change(aliceWrites + bobReads) // and back again
	bob.subscribe("secret/1", 1)
	if m := bob.message(); m.topic != "secret/1" {
		t.Errorf("a message of %q", m.topic)
	}
}

// mosquitto: and though whoever had published it had lost the right to.
func TestCVE_2018_12546_RetainedOfOneWhoMayNotPublishAnyMore(t *testing.T) {
	t.Parallel()
	b, change := changing(t, aliceWrites+"user carol\ntopic write #\n"+bobReads)
	alice, carol := b.join(who{user: "alice"}), b.join(who{user: "carol"})
	alice.send(packet(0x31, "notice/1", props(), []byte("x")))
	alice.alive()
	carol.send(packet(0x31, "notice/2", props(), []byte("x")))
	carol.alive()
	// And one that a will has left.
	w := b.join(who{user: "alice", will: &will{topic: "notice/3", payload: "x", retain: true}})
	bob := b.join(who{user: "bob"})
	bob.subscribe("notice/3", 0)
	w.drop()
	bob.message()
	change("user alice\ntopic write other/#\nuser carol\ntopic write #\n" + bobReads)
	bob.subscribe("notice/#", 0)
	if m := bob.message(); m.topic != "notice/2" {
		t.Errorf("a message of %q", m.topic)
	}
	bob.silent(moment)
	change(aliceWrites + bobReads) // now it is carol who may not
	got := map[string]bool{}
	bob.subscribe("notice/+", 0)
	for range 2 {
		got[bob.message().topic] = true
	}
	if !got["notice/1"] || !got["notice/3"] {
		t.Errorf("messages of %v", got)
	}
	bob.silent(moment)
}

// mosquitto: a durable client kept a subscription to which it had no right any
// more.
func TestCVE_2021_34434_DurableSubscriptionBehindARevocation(t *testing.T) {
	t.Parallel()
	b, change := changing(t, aliceWrites+bobReads)
	alice := b.join(who{user: "alice"})
	w := who{id: "bobs", user: "bob", resume: true, expiry: 600}
	bob := b.join(w)
	bob.subscribe("secret/#", 1)
	bob.subscribe("$share/g/secret/#", 1)
	alice.publish("secret/1", "x", 1, 0)
	for range 2 {
		bob.send(ack(codec.PUBACK, bob.message().id))
	}
	bob.drop()
	alice.publish("secret/queued", "x", 1, 0)
	change(aliceWrites + bobReadsNot)
	alice.publish("secret/away", "x", 1, 0)
	bob = b.join(w)
	bob.silent(moment)
	alice.publish("secret/live", "x", 1, 0)
	bob.silent(moment)
	// It was there all the time, and is of use again with the right to it.
	change(aliceWrites + bobReads)
	alice.publish("secret/again", "x", 1, 0)
	if m := bob.message(); m.topic != "secret/again" {
		t.Errorf("a message of %q", m.topic)
	}
}

// mochi: what was on its way to a client was sent again after a reconnect
// without a look at its rights.
func TestMochi504_ResendBehindARevocation(t *testing.T) {
	t.Parallel()
	b, change := changing(t, aliceWrites+bobReads)
	alice := b.join(who{user: "alice"})
	w := who{id: "bobs", user: "bob", resume: true, expiry: 600}
	bob := b.join(w)
	bob.subscribe("#", 2)
	for _, topic := range []string{"secret/1", "plain/1", "secret/2"} {
		alice.publish(topic, "x", 1, 0)
		bob.message() // and does not acknowledge it
	}
	bob.drop()
	change(aliceWrites + bobReadsNot)
	bob = b.join(w)
	m := bob.message()
	if m.topic != "plain/1" {
		t.Errorf("%q is sent again", m.topic)
	}
	bob.send(ack(codec.PUBACK, m.id))
	bob.silent(moment)
	// Nothing is stuck in the window.
	for range 50 {
		alice.publish("plain/2", "x", 1, 0)
		bob.send(ack(codec.PUBACK, bob.message().id))
	}
}

// mosquitto, mochi: a will was looked at when its client came, not when it fired.
func TestMochi503_WillBehindARevocation(t *testing.T) {
	t.Parallel()
	b, change := changing(t, aliceWrites+bobReads)
	bob := b.join(who{user: "bob"})
	bob.subscribe("#", 1)
	alice := b.join(who{user: "alice", will: &will{topic: "secret/will", payload: "x", retain: true}})
	stays := b.join(who{user: "alice"})
	change("user alice\ntopic write plain/#\n" + bobReads)
	alice.drop()
	bob.silent(moment)
	if reason := stays.publish("secret/x", "x", 1, 0); reason != 0x87 {
		t.Errorf("PUBACK %#02x", reason)
	}
	stays.publish("plain/x", "x", 1, 0)
	if m := bob.message(); m.topic != "plain/x" {
		t.Errorf("a message of %q", m.topic)
	}
	c := b.join(who{user: "bob"})
	c.subscribe("#", 0)
	c.silent(moment)
}
