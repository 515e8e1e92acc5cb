package broker

import "testing"

// panics reports whether f does.
func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

func TestInvariants_AreChecked(t *testing.T) {
	if !invariants {
		t.Skip("needs -tags invariants or -race")
	}
	if !panics(func() { (&client{state: closed}).become(open) }) {
		t.Error("a closed client may open")
	}
	if panics(func() { (&client{state: moving}).become(open) }) {
		t.Error("a client that moves may not open")
	}
	borrowed := &message{topic: []byte("a"), payload: []byte("secret")}
	m := borrowed.own()
	borrowed.disown()
	view := m.payload
	m.release()
	if view[0] != 0xDB {
		t.Errorf("a released message reads %q", view)
	}
	if !panics(m.release) {
		t.Error("a message may be released too often")
	}
	if !panics(func() { m.own() }) {
		t.Error("a released message may be kept")
	}
	s := newSim(t, 1, Options{})
	s.b.loops[0].idle.dropped = 1
	if !panics(func() { s.turn() }) {
		t.Error("the traffic of idle sessions may be written to")
	}
}
