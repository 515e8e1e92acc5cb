package conformance

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
)

// testdata/scram.txt knows this user.
const (
	scramMethod   = "SCRAM-SHA-256"
	scramUser     = "alice"
	scramPassword = "correct horse"
)

// scram is the client's side of one SCRAM-SHA-256 exchange (RFC 5802, 7677).
type scram struct {
	user, password, nonce string

	signature string // what the server must prove, once final was called
}

func (x *scram) bare() string  { return "n=" + x.user + ",r=" + x.nonce }
func (x *scram) first() string { return "n,," + x.bare() }

// final answers the server's challenge.
func (x *scram) final(t testing.TB, challenge string) string {
	t.Helper()
	field := map[byte]string{}
	for part := range strings.SplitSeq(challenge, ",") {
		if len(part) > 2 && part[1] == '=' {
			field[part[0]] = part[2:]
		}
	}
	salt, err := base64.StdEncoding.DecodeString(field['s'])
	rounds, err2 := strconv.Atoi(field['i'])
	if err != nil || err2 != nil || !strings.HasPrefix(field['r'], x.nonce) || len(field['r']) == len(x.nonce) {
		t.Fatalf("challenge %q", challenge)
	}
	salted, err := pbkdf2.Key(sha256.New, x.password, salt, rounds, 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte, s string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(s))
		return h.Sum(nil)
	}
	without := "c=biws,r=" + field['r']
	message := x.bare() + "," + challenge + "," + without
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	proof := mac(stored[:], message)
	for i := range proof {
		proof[i] ^= key[i]
	}
	x.signature = "v=" + base64.StdEncoding.EncodeToString(mac(mac(salted, "Server Key"), message))
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof)
}

// authPacket is an AUTH.
func authPacket(reason byte, method, data string) []byte {
	return frame(tAUTH, 0, []byte{reason}, props(propS(pAuthMethod, method), propS(pAuthData, data)))
}

// begin sends a CONNECT with the first message and returns the AUTH that asks
// for more.
func (x *scram) begin(c *client, opts ...as) *packet {
	c.t.Helper()
	r := request(v5, append(opts, with(propS(pAuthMethod, scramMethod), propS(pAuthData, x.first())))...)
	c.id = r.id
	c.send(r.bytes())
	return c.expect(tAUTH)
}

func data(p *packet) string   { d, _ := p.prop(pAuthData); return d.text }
func method(p *packet) string { m, _ := p.prop(pAuthMethod); return m.text }

// authenticated is a client that was let in by SCRAM.
func authenticated(t *testing.T, opts ...as) *client {
	t.Helper()
	c := dial(t, startBroker(t, "scram"), v5)
	x := scram{scramUser, scramPassword, unique(), ""}
	p := x.begin(c, opts...)
	c.send(authPacket(0x18, scramMethod, x.final(t, data(p))))
	c.connack = c.expect(tCONNACK)
	if c.connack.reason != 0 || data(c.connack) != x.signature {
		t.Fatalf("%v, not %s", c.connack, x.signature)
	}
	return c
}

func TestAuth_ScramLetsIn(t *testing.T) { // [MQTT-3.1.4-5]
	t.Parallel()
	c := authenticated(t)
	c.listen(1, c.id)
	c.post(publish{topic: c.id, payload: "x", qos: 1})
	c.take(c.id, "x")
}

func TestAuth_AsksForMoreWith18(t *testing.T) { // [MQTT-4.12.0-2] [MQTT-3.15.2-1]
	t.Parallel()
	x := scram{scramUser, scramPassword, unique(), ""}
	if p := x.begin(dial(t, startBroker(t, "scram"), v5)); p.reason != 0x18 {
		t.Errorf("%v", p)
	}
}

func TestAuth_AnswerMustHave18(t *testing.T) { // [MQTT-4.12.0-3]
	t.Parallel()
	for _, reason := range []byte{0, 0x19} {
		c := dial(t, startBroker(t, "scram"), v5)
		x := scram{scramUser, scramPassword, unique(), ""}
		c.send(authPacket(reason, scramMethod, x.final(t, data(x.begin(c)))))
		c.refused(0x82, 0x81)
	}
}

func TestAuth_FailureEndsTheConnection(t *testing.T) { // [MQTT-4.12.0-4] [MQTT-3.1.4-2]
	t.Parallel()
	s := startBroker(t, "scram")
	for name, x := range map[string]scram{
		"wrong password": {scramUser, "wrong", unique(), ""},
		"unknown user":   {"nobody", scramPassword, unique(), ""},
	} {
		c := dial(t, s, v5)
		c.send(request(v5, with(propS(pAuthMethod, scramMethod), propS(pAuthData, x.first()))).bytes())
		p := c.arrive()
		if p != nil && p.typ == tAUTH { // an unknown user need not be told so at once
			c.send(authPacket(0x18, scramMethod, x.final(t, data(p))))
			p = c.arrive()
		}
		if p != nil && (p.typ != tCONNACK || p.reason != 0x86 && p.reason != 0x87) {
			t.Errorf("%s: %v", name, p)
		}
		if p != nil {
			c.ended()
		}
	}
	for _, bad := range []string{"", "n,,", "garbage", "y,,n=alice,r=", "p=tls-unique,,n=alice,r=abc"} {
		c := dial(t, s, v5)
		c.send(request(v5, with(propS(pAuthMethod, scramMethod), propS(pAuthData, bad))).bytes())
		c.refused(0x80, 0x81, 0x82, 0x86, 0x87)
	}
}

func TestAuth_EveryPacketNamesTheMethod(t *testing.T) { // [MQTT-4.12.0-5]
	t.Parallel()
	c := dial(t, startBroker(t, "scram"), v5)
	x := scram{scramUser, scramPassword, unique(), ""}
	p := x.begin(c)
	if method(p) != scramMethod {
		t.Errorf("%v", p)
	}
	c.send(authPacket(0x18, scramMethod, x.final(t, data(p))))
	if p = c.expect(tCONNACK); method(p) != scramMethod {
		t.Errorf("%v", p)
	}
	x.nonce = unique()
	c.send(authPacket(0x19, scramMethod, x.first()))
	if p = c.expect(tAUTH); method(p) != scramMethod || p.reason != 0x18 {
		t.Errorf("%v", p)
	}
	c.send(authPacket(0x18, scramMethod, x.final(t, data(p))))
	if p = c.expect(tAUTH); method(p) != scramMethod || p.reason != 0 || data(p) != x.signature {
		t.Errorf("%v", p)
	}
}

func TestAuth_OtherPacketsBeforeConnackAreRefused(t *testing.T) { // [MQTT-3.1.2-30]
	t.Parallel()
	s := startBroker(t, "scram")
	for _, b := range [][]byte{pingreq, (&publish{topic: "a"}).bytes(v5), subscribe(v5, 1, nil, sub{"a", 0})} {
		c := dial(t, s, v5)
		x := scram{scramUser, scramPassword, unique(), ""}
		x.begin(c)
		c.send(b)
		c.refused(0x82)
	}
}

func TestAuth_AgainWhileMessagesFlow(t *testing.T) { // [MQTT-3.15.2-1]
	t.Parallel()
	c := authenticated(t)
	c.listen(1, c.id)
	x := scram{scramUser, scramPassword, unique(), ""}
	c.send(authPacket(0x19, scramMethod, x.first()))
	p := c.await(tAUTH)
	c.post(publish{topic: c.id, payload: "meanwhile", qos: 1})
	c.take(c.id, "meanwhile")
	c.send(authPacket(0x18, scramMethod, x.final(t, data(p))))
	if p = c.await(tAUTH); p.reason != 0 {
		t.Errorf("%v", p)
	}
	c.alive()
}

func TestAuth_AgainByAnotherMethodIsRefused(t *testing.T) { // [MQTT-4.12.1-1]
	t.Parallel()
	c := authenticated(t)
	c.send(authPacket(0x19, "OTHER", "x"))
	c.ejected(0x82, 0x8c)
}

func TestAuth_AgainFailedEndsTheConnection(t *testing.T) { // [MQTT-4.12.1-2]
	t.Parallel()
	topic := unique()
	watch := authenticated(t)
	watch.listen(0, topic)
	c := authenticated(t, leaving(will{topic: topic, payload: "will"}))
	x := scram{scramUser, "wrong", unique(), ""}
	c.send(authPacket(0x19, scramMethod, x.first()))
	c.send(authPacket(0x18, scramMethod, x.final(t, data(c.expect(tAUTH)))))
	c.ejected(0x87)
	watch.willed()
}

func TestAuth_AgainAsAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	c := authenticated(t)
	x := scram{"bob", "bob's password", unique(), ""} // who is known too
	c.send(authPacket(0x19, scramMethod, x.first()))
	if p := c.next(); p.typ == tAUTH {
		c.send(authPacket(0x18, scramMethod, x.final(t, data(p))))
	} else {
		c.held = append(c.held, p)
	}
	c.ejected(0x82, 0x87)
}

func TestAuth_FitsThePacketSize(t *testing.T) { // [MQTT-3.15.2-2] [MQTT-3.15.2-3]
	t.Parallel()
	c := dial(t, startBroker(t, "scram"), v5)
	c.limit(200)
	x := scram{scramUser, scramPassword, unique(), ""}
	p := x.begin(c, with(prop4(pMaximumPacketSize, 200)))
	c.send(authPacket(0x18, scramMethod, x.final(t, data(p))))
	c.expect(tCONNACK)
}

func TestAuth_ClientWithoutCredentialsIsRefused(t *testing.T) { // [MQTT-3.1.4-2] [MQTT-3.2.2-7] [MQTT3-3.2.2-5] [MQTT3-3.2.2-4]
	t.Parallel()
	s := startBroker(t, "scram")
	over(t, []byte{v31, v311, v5}, func(t *testing.T, v byte) {
		for _, r := range []*connect{request(v), request(v, func(c *connect) { c.user, c.pass = ptr(scramUser), ptr("wrong") })} {
			c := dial(t, s, v)
			c.send(r.bytes())
			if v == v5 {
				c.refused(0x86, 0x87)
			} else if c.refused(4, 5) == nil {
				t.Error("no CONNACK")
			}
		}
	})
}

func TestAuth_NoAuthPacketUnlessAsked(t *testing.T) { // [MQTT-4.12.0-6]
	t.Parallel()
	c := dial(t, startBroker(t, "scram"), v5)
	c.send(request(v5, func(r *connect) { r.user, r.pass = ptr(scramUser), ptr(scramPassword) }).bytes())
	for p := c.arrive(); p != nil; p = c.arrive() {
		if p.typ == tAUTH || p.has(pAuthMethod) {
			t.Errorf("%v", p)
		}
		if p.typ == tCONNACK && p.reason == 0 {
			return
		}
	}
}
