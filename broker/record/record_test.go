package record

import (
	"bytes"
	"reflect"
	"testing"
)

// value is what every kind of value can do.
type value interface {
	Append([]byte) []byte
	Decode([]byte) error
}

var message = Message{
	ID: MessageID{1, 2, 15: 9}, From: 1 << 63, Deadline: 77, Version: 5, QoS: 2, Retain: true, ExpiryAt: 1,
	Topic: []byte("a/b"), Props: []byte{2, 0, 0, 0, 9}, Payload: []byte("payload"),
}

var values = []struct {
	v, fresh value
	sized    bool // ends where its fields do, so that a byte less or more shows
}{
	{&Session{ClientID: "c", Username: "u", Epoch: 3, Expiry: 0xFFFFFFFF, LostAt: 1 << 40, Reply: "$reply/x/"}, new(Session), true},
	{&Will{Client: "c", Delay: 4, Expiry: 5, Message: message}, new(Will), false},
	{&Will{Client: "c", User: "u", Listener: "l", Remote: "[::1]:1", Claims: true, Data: []byte{1}, Message: message}, new(Will), false},
	{&message, new(Message), false},
	{&Message{ExpiryAt: -1, Topic: []byte("t"), Props: []byte{}, Payload: []byte{1}, Published: true, ClientID: "c", Username: "u"}, new(Message), false},
	{&Message{ExpiryAt: -1, Topic: []byte("t"), Props: []byte{}, Payload: []byte{}}, new(Message), false},
	{&Subscription{QoS: 2, NoLocal: true, RetainAsPublished: true, Replaying: true, Order: 12, IDs: []uint32{1, 268435455}}, new(Subscription), true},
	{&Subscription{}, new(Subscription), true},
	{&Delivery{QoS: 1, Size: 100}, new(Delivery), true},
	{&Delivery{QoS: 1, Group: "g/a/+", GroupSeq: 1 << 40, Size: 3}, new(Delivery), true},
	{&Delivery{QoS: 2, Retain: true, Released: true, Numbered: true, Number: 1 << 50}, new(Delivery), true},
	{&Delivery{QoS: 2, Numbered: true, Shared: true, ID: MessageID{7}, Size: 1, Deadline: 1 << 41, IDs: []uint32{8}}, new(Delivery), true},
}

func TestValuesComeBackAsTheyWere(t *testing.T) {
	for _, c := range values {
		if err := c.fresh.Decode(c.v.Append(nil)); err != nil {
			t.Errorf("%+v: %v", c.v, err)
		} else if !reflect.DeepEqual(c.v, c.fresh) {
			t.Errorf("%+v came back as %+v", c.v, c.fresh)
		}
	}
}

func TestValuesThatAreCutOrLongerAreCorrupt(t *testing.T) {
	for _, c := range values {
		if !c.sized {
			continue
		}
		b := c.v.Append(nil)
		for n := range b {
			if c.fresh.Decode(b[:n:n]) == nil {
				t.Errorf("%+v: the first %d of %d bytes were read as a whole value", c.v, n, len(b))
			}
		}
		if c.fresh.Decode(append(b, 0)) == nil {
			t.Errorf("%+v: a byte too many was not noticed", c.v)
		}
	}
}

func TestKeysSortAsTheirNumbersDo(t *testing.T) {
	numbers := []uint64{0, 1, 255, 256, 1 << 32, groupBit, 1<<64 - 1}
	for i := 1; i < len(numbers); i++ {
		a, b := AppendRow(nil, KindDelivery, 5, numbers[i-1]), AppendRow(nil, KindDelivery, 5, numbers[i])
		if bytes.Compare(a, b) >= 0 {
			t.Errorf("row %d does not sort before row %d", numbers[i-1], numbers[i])
		}
		if owner, row, ok := Row(b); !ok || owner != 5 || row != numbers[i] {
			t.Errorf("Row gives %d, %d, %v", owner, row, ok)
		}
		if end := End(AppendOwner(nil, KindDelivery, numbers[i-1])); bytes.Compare(AppendRow(nil, KindDelivery, numbers[i-1], 1<<64-1), end) >= 0 {
			t.Errorf("End of owner %d does not lie behind its last row", numbers[i-1])
		}
	}
	if end := End([]byte{KindGone, 0xFF}); !bytes.Equal(end, []byte{KindGone + 1}) {
		t.Errorf("End of a prefix with 0xFF is %x", end)
	}
}

func FuzzDecode(f *testing.F) {
	for i, c := range values {
		f.Add(byte(i), c.v.Append(nil))
	}
	kinds := []func() value{
		func() value { return new(Session) }, func() value { return new(Message) },
		func() value { return new(Subscription) }, func() value { return new(Delivery) }, func() value { return new(Will) },
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		v := kinds[int(kind)%len(kinds)]()
		if v.Decode(b) != nil {
			return
		}
		again := kinds[int(kind)%len(kinds)]()
		if err := again.Decode(v.Append(nil)); err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%+v came back as %+v, %v", v, again, err)
		}
	})
}
