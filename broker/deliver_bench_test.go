package broker

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"hashplus/broker/wire"
)

// The broker without sockets: from a packet's bytes to the write queues, on one
// simulated loop, which costs a little itself. The figures are per delivery.

// forget drops what the peers have got.
func forget(peers []*simConn) {
	for _, c := range peers {
		c.out = c.out[:0]
	}
}

// arrive is feed without growing: the bytes are read in place.
func (c *simConn) arrive(b []byte) {
	c.in = b
	c.wake()
}

func perDelivery(b *testing.B, deliveries int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*deliveries), "ns/delivery")
}

// BenchmarkFanout is 1 → 1000 in bursts of 8. At QoS 1 the acknowledgements of
// the subscribers belong to it.
func BenchmarkFanout(b *testing.B) {
	for qos := range byte(2) {
		b.Run(fmt.Sprint("qos", qos), func(b *testing.B) { fanout(b, qos, nil) })
	}
	// With an Authorizer that clears the subscriptions, and with one that is asked
	// for each delivery and answers at once.
	b.Run("cleared", func(b *testing.B) { fanout(b, 0, filtering{}) })
	b.Run("screened", func(b *testing.B) { fanout(b, 0, allowing{}) })
}

func fanout(b *testing.B, qos byte, rules Authorizer) {
	const subscribers, burst = 1000, 8
	s := newSim(b, 1, Options{Authorizer: rules})
	var subs []*simConn
	for i := range subscribers {
		c := s.join(0, fmt.Sprint("s", i), wire.V311, 0)
		c.sub(wire.V311, wire.Subscription{Filter: "sensor/+/temperature", QoS: qos})
		subs = append(subs, c)
	}
	p := s.join(0, "p", wire.V311, 0)
	payload := strings.Repeat("x", 64)
	packet := make([]byte, 0, 1024)
	acks := make([][]byte, subscribers)
	b.ReportAllocs()
	for b.Loop() {
		packet = packet[:0]
		for i := range burst {
			packet = append(packet, pub(wire.V311, "sensor/7/temperature", payload, qos, uint16(i+1)*uint16(qos))...)
		}
		p.arrive(packet)
		s.run()
		if qos > 0 {
			for i, c := range subs {
				acks[i] = acksFor(acks[i][:0], c.out)
				c.arrive(acks[i])
			}
			s.run()
		}
		forget(subs)
		p.out = p.out[:0]
	}
	perDelivery(b, subscribers*burst)
}

// BenchmarkPairs is 500 → 500, one message each at a time.
func BenchmarkPairs(b *testing.B) {
	for qos := range byte(2) {
		b.Run(fmt.Sprint("qos", qos), func(b *testing.B) {
			const pairs = 500
			s := newSim(b, 1, Options{})
			var pubs, subs []*simConn
			packets, acks := make([][]byte, pairs), make([][]byte, pairs)
			for i := range pairs {
				c := s.join(0, fmt.Sprint("s", i), wire.V311, 0)
				c.sub(wire.V311, wire.Subscription{Filter: fmt.Sprintf("pair/%d/data", i), QoS: qos})
				subs = append(subs, c)
				pubs = append(pubs, s.join(0, fmt.Sprint("p", i), wire.V311, 0))
				packets[i] = pub(wire.V311, fmt.Sprintf("pair/%d/data", i), strings.Repeat("x", 64), qos, uint16(qos))
			}
			b.ReportAllocs()
			for b.Loop() {
				for i, p := range pubs {
					p.arrive(packets[i])
				}
				s.run()
				if qos > 0 {
					for i, c := range subs {
						acks[i] = acksFor(acks[i][:0], c.out)
						c.arrive(acks[i])
					}
					s.run()
				}
				forget(subs)
				forget(pubs)
			}
			perDelivery(b, pairs)
		})
	}
}

// BenchmarkFanin is 500 → 1 in bursts of 8.
func BenchmarkFanin(b *testing.B) {
	const publishers, burst = 500, 8
	s := newSim(b, 1, Options{})
	sub := s.join(0, "s", wire.V311, 0)
	sub.sub(wire.V311, wire.Subscription{Filter: "in/#"})
	var pubs []*simConn
	packets := make([][]byte, publishers)
	for i := range publishers {
		pubs = append(pubs, s.join(0, fmt.Sprint("p", i), wire.V311, 0))
		one := pub(wire.V311, fmt.Sprintf("in/%d", i), strings.Repeat("x", 64), 0, 0)
		for range burst {
			packets[i] = append(packets[i], one...)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, p := range pubs {
			p.arrive(packets[i])
		}
		s.run()
		sub.out = sub.out[:0]
	}
	perDelivery(b, publishers*burst)
}

// acksFor appends a PUBACK for each of packets, which are PUBLISH at QoS 1.
func acksFor(dst, packets []byte) []byte {
	for len(packets) > 0 {
		h, err := wire.ReadHeader(packets)
		if err != nil {
			panic(err)
		}
		body := packets[h.Size:]
		id := body[2+binary.BigEndian.Uint16(body):]
		dst = append(dst, 0x40, 2, id[0], id[1])
		packets = packets[h.Size+h.Remaining:]
	}
	return dst
}
