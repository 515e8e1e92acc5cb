package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hashplus/broker/wire"
)

// What is dropped from a queue that the store has is gone when the rest is read,
// and takes nothing else with it.
func TestStored_DropOldestTakesNothingElse(t *testing.T) {
	s := newStored(t, 1, Options{QueueFull: DropOldest, MaxQueuedMessages: 2000})
	c := s.join(0, "c", wire.V5, 600)
	s.sub(c, wire.V5, wire.Subscription{Filter: "#", QoS: 1})
	c.cut()
	c2 := s.join(0, "c2", wire.V5, 600)
	s.sub(c2, wire.V5, wire.Subscription{Filter: "b", QoS: 1})
	c2.cut()
	x := s.join(0, "x", wire.V5, 0)
	k := 0
	send := func(n int) {
		for range n {
			topic := "a"
			if k >= 256 && k < 276 {
				topic = "b"
			}
			x.feed(pub(wire.V5, topic, fmt.Sprint(k), 1, uint16(k+1)))
			k++
		}
	}
	for range 20 {
		send(100)
		s.store()
	}
	c = s.join(0, "c", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 256 })
	s.store()
	send(256)
	s.store()
	q := &s.sessionOf("c").pending
	send(10)
	s.run() // the trims are noted, not stored
	list := c.publishes(wire.V5)
	c.ack(wire.V5, list)
	s.run()
	for s.reading() {
		time.Sleep(time.Millisecond)
	}
	s.run()
	got := len(list)
	for range 200 {
		s.store()
		list := c.publishes(wire.V5)
		got += len(list)
		c.ack(wire.V5, list)
	}
	if got != k-10 || q.count != 0 || q.bytes != 0 {
		t.Errorf("sent %d, dropped 10, got %d; %d wait, %d bytes", k, got, q.count, q.bytes)
	}
	c2 = s.join(0, "c2", wire.V5, 600)
	s.store()
	if got := len(c2.publishes(wire.V5)); got != 20 {
		t.Errorf("another session got %d of its 20 messages", got)
	}
}

// To drop a message costs the same however many were dropped before: what has
// gone is not looked through again.
func TestStored_DropOldestRemembersWhereItGotTo(t *testing.T) {
	s := newStored(t, 1, Options{QueueFull: DropOldest, MaxQueuedMessages: 10})
	c := s.join(0, "c", wire.V5, 600)
	s.sub(c, wire.V5, wire.Subscription{Filter: "t", QoS: 1})
	c.cut()
	x := s.join(0, "x", wire.V5, 0)
	for i := range 60 {
		s.send(x, pub(wire.V5, "t", fmt.Sprint(i), 1, uint16(i+1)))
	}
	if q := &s.sessionOf("c").pending; q.cold.from != 51 || q.cold.count != 10 {
		t.Errorf("the next that is dropped is looked for from row %d on, want 51; %d wait", q.cold.from, q.cold.count)
	}
	list := s.join(0, "c", wire.V5, 600).publishes(wire.V5)
	if got := payloads(list); got != "50 51 52 53 54 55 56 57 58 59" {
		t.Errorf("got %q", got)
	}
}

func TestStored_NumbersOfAShareGroupAreNotUsedAgain(t *testing.T) {
	s := newStored(t, 1, Options{})
	a := s.join(0, "a", wire.V5, 600)
	s.sub(a, wire.V5, wire.Subscription{Filter: "$share/g/t", QoS: 1})
	x := s.join(0, "x", wire.V5, 0)
	s.send(x, pub(wire.V5, "t", "m1", 1, 1))
	s.send(x, pub(wire.V5, "t", "m2", 1, 2))
	s.crash()
	b := s.join(0, "b", wire.V5, 600, func(p *wire.Connect) { p.ReceiveMaximum = 1 })
	s.sub(b, wire.V5, wire.Subscription{Filter: "$share/g/t", QoS: 1})
	x = s.join(0, "x", wire.V5, 0)
	s.send(x, pub(wire.V5, "t", "n1", 1, 1))
	s.send(x, pub(wire.V5, "t", "n2", 1, 2))
	s.join(0, "a", wire.V5, 0) // clean start
	for s.b.ledger.clean() {
	}
	s.store()
	s.crash()
	b = s.join(0, "b", wire.V5, 600)
	s.store()
	got := strings.Fields(payloads(b.publishes(wire.V5)))
	slices.Sort(got)
	if fmt.Sprint(got) != "[m1 m2 n1 n2]" {
		t.Errorf("got %v", got)
	}
}

func TestStored_ExpiryBesideAReconnect(t *testing.T) {
	s := newStored(t, 1, Options{})
	for _, id := range []string{"c", "c2"} {
		c := s.join(0, id, wire.V5, 6000)
		s.sub(c, wire.V5, wire.Subscription{Filter: "m", QoS: 1})
		c.cut()
	}
	x := s.join(0, "x", wire.V5, 0)
	for i := range 30 {
		o := wire.Outgoing{Version: wire.V5, QoS: 1, PacketID: uint16(i + 1), Topic: []byte("m"), Payload: fmt.Append(nil, i), ExpiryAt: -1}
		if i < 10 {
			o.Props, o.ExpiryAt, o.Expiry = []byte{2, 0, 0, 0, 100}, 1, 100
		}
		b := make([]byte, o.Size())
		o.Put(b)
		x.feed(b)
	}
	s.store()
	s.m.turnBack(500)
	s.crash()
	// the client's CONNECT is stored, and the search comes before it is told so
	s.b.ledger.searchExpired()
	c := s.dial(0)
	p := wire.Connect{Version: wire.V5, ClientID: "c", SessionExpiry: 6000, ReceiveMaximum: 100}
	c.feed(p.Append(nil))
	for range 5 {
		s.turn()
	}
	s.b.ledger.turn() // session row
	for s.reading() {
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		s.run()
		for s.reading() {
			time.Sleep(time.Millisecond)
		}
	}
	got := payloads(c.publishes(wire.V5))
	for range 10 {
		s.store()
		list := c.publishes(wire.V5)
		got += " " + payloads(list)
	}
	var want []string
	for i := 10; i < 30; i++ {
		want = append(want, fmt.Sprint(i))
	}
	if fields := strings.Fields(got); !slices.Equal(fields, want) {
		t.Errorf("got %v", fields)
	}
}

func TestQueue_WhatIsNotStoredStaysInMemory(t *testing.T) {
	var q queue
	for i := range 10 {
		q.push(delivery{msg: (&message{topic: []byte("t"), payload: []byte("p")}).keep(), row: uint64(i + 1), stored: i != 0})
	}
	q.chill(3)
	q.chill(0)
	if d := q.find(1); d == nil || q.front.count != 1 || q.cold.count != 9 || q.cold.from != 2 || q.cold.to != 10 {
		t.Errorf("front %d, cold %+v, row 1 %v", q.front.count, q.cold, d)
	}
}

func TestQueue_EmptyHasNoBytes(t *testing.T) {
	var q queue
	for i := range 1000 {
		n := 10
		if i < 10 {
			n = 1 << 20
		}
		q.push(delivery{msg: (&message{topic: []byte("t"), payload: make([]byte, n)}).keep(), row: uint64(i + 1), stored: true})
	}
	q.chill(0)
	for range 10 {
		q.trim()
	}
	for i := range 990 {
		q.warm(delivery{msg: (&message{topic: []byte("t"), payload: make([]byte, 10)}).keep(), row: uint64(i + 11), stored: true})
		q.pop()
	}
	if q.count != 0 || q.bytes != 0 {
		t.Errorf("%d deliveries, %d bytes", q.count, q.bytes)
	}
}
