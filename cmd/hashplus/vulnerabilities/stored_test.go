package vulnerabilities

import (
	"fmt"
	"testing"
	"time"

	"hashplus/bench/codec"
)

// A fuzzer's find, here: what waits for an absent client is read from the store
// when it comes back. One that acknowledged it before it was read, in the same
// breath as its CONNECT, made the broker look at a message that was not there.
func TestStored_AcknowledgedBeforeItIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, kind := range []byte{codec.PUBACK, codec.PUBREC, codec.PUBCOMP} {
		b := open(t, "--data="+t.TempDir())
		w := who{id: "back", resume: true, expiry: 600}
		qos := byte(2)
		if kind == codec.PUBACK {
			qos = 1
		}
		c := b.join(w)
		c.subscribe("q", qos)
		pub := b.join(who{})
		var ids []uint16
		for i := range 100 {
			pub.send(pub.publication("q", fmt.Sprint(i), qos, uint16(i+1), 0))
			ids = append(ids, c.message().id)
			if qos == 2 {
				pub.await(codec.PUBREC)
				pub.send(ack(codec.PUBREL, uint16(i+1)))
				pub.await(codec.PUBCOMP)
			} else {
				pub.await(codec.PUBACK)
			}
		}
		c.drop()
		time.Sleep(500 * time.Millisecond) // for what waits to leave memory
		c = b.dial()
		all := w.connect()
		for _, id := range ids {
			all = append(all, ack(kind, id)...)
		}
		c.send(append(all, 0xc0, 0))
		c.expect(codec.CONNACK)
		for {
			p, err := c.read(patience)
			if err != nil || p.Type == codec.PINGRESP || p.Type == codec.DISCONNECT {
				t.Logf("acknowledged by packets of type %d: type %d, %v", kind, p.Type, err)
				break
			}
		}
		c.drop()
		// Whatever that was, the session goes on.
		c = b.join(w)
		for i := range 100 {
			pub.send(pub.publication("q", fmt.Sprint("later ", i), 1, uint16(i+1), 0))
		}
		for last := fmt.Sprint("later ", 99); ; {
			p, err := c.read(patience)
			if err != nil {
				t.Fatalf("acknowledged by packets of type %d: %v", kind, err)
			}
			switch p.Type {
			case codec.PUBLISH:
				m := c.decode(p)
				answer := codec.PUBACK
				if m.qos == 2 {
					answer = codec.PUBREC
				}
				c.send(ack(answer, m.id))
				if m.payload == last {
					last = ""
				}
			case codec.PUBREL:
				c.send(ack(codec.PUBCOMP, packetID(p)))
			}
			if last == "" {
				break
			}
		}
		c.drop()
		pub.drop()
	}
}
