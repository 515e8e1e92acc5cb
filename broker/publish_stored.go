package broker

import (
	"hashplus/broker/record"
	"hashplus/broker/wire"
)

// receipt stands for a QoS 2 PUBLISH that was received and whose identifier is
// not stored yet.
type receipt struct {
	again *client // sent it once more meanwhile, and waits for PUBREC
	n     uint64  // of that answer
}

// receive remembers that the QoS 2 publish id came in. In a stored session the
// identifier goes into p, with the message; p is made if it is nil, as PUBREC
// must wait in any case.
func (s *session) receive(id uint16, p **page, l *loop) {
	t := s.busy()
	if t.received == nil {
		t.received = make(map[uint16]*receipt)
	}
	if s.stored == nil {
		t.received[id] = nil
		return
	}
	if *p == nil {
		*p = l.notes()
	}
	r := new(receipt)
	t.received[id] = r
	(*p).set(record.AppendReceived(nil, s.stored.owner, id), nil)
	(*p).after(func() {
		if s.received[id] == r {
			s.received[id] = nil
		}
		if r.again != nil {
			r.again.settle(r.n)
		}
	})
}

// receivedAgain answers a QoS 2 PUBLISH that was received before, over this
// connection or an earlier one, when its identifier is stored.
func (c *client) receivedAgain(r *receipt, id uint16) {
	a := answer{t: wire.PUBREC, id: id}
	if r == nil {
		c.answer(a)
		return
	}
	if r.again == c {
		return // it has one answer to come already
	}
	r.again, r.n = c, c.owed.next()
	c.owed.list = append(c.owed.list, a)
}

// openSheet returns the page that m's acknowledgement waits for, or nil if
// nothing of it is to be stored. match has found its receivers. What is put into
// the store from here to closeSheet goes with it.
func (l *loop) openSheet(s *session, m *message) *page {
	l.openPosting(s, m)
	if l.b.ledger == nil || m.qos == 0 {
		return nil
	}
	if l.lasting != 0 || m.retain || m.qos == 2 && s.stored != nil {
		return l.sheet()
	}
	return nil
}

// openPosting begins the posting of m, which s publishes, or nobody that is there
// any more, if it needs one. match has found its receivers.
func (l *loop) openPosting(s *session, m *message) {
	l.closeSheet()
	if l.b.ledger == nil || m.qos == 0 || l.lasting == 0 || len(l.b.loops) == 1 && !l.mayPutOff(l.nodes) {
		return
	}
	if s == nil {
		l.posting = newPosting(l.b, nil)
		return
	}
	t := s.busy()
	t.posting = newPosting(l.b, t.posting)
	l.posting = t.posting
}

// goOn makes t, which the caller has entered and closeSheet leaves, the posting
// of what comes next. An earlier one is still there if something has panicked
// under it: others wait for that.
func (l *loop) goOn(t *posting) {
	l.closeSheet()
	l.posting = t
}

func (l *loop) closeSheet() {
	l.posting.leave()
	l.posting = nil
}

// mustStore reports whether a PUBLISH of s can't be acknowledged without being
// stored.
func (l *loop) mustStore(s *session, p *wire.Publish) bool {
	if p.QoS == 0 {
		return false
	}
	if p.Retain || p.QoS == 2 && s.stored != nil {
		return true
	}
	l.match(&message{topic: p.Topic})
	return l.lasting != 0
}

// refusedStore refuses a PUBLISH that can't be stored now. A client of version 5
// is told; an older one gets no acknowledgement, as it would take that for
// success, and sends the message again over its next connection.
func (l *loop) refusedStore(c *client, p *wire.Publish) {
	bump(&l.stats.dropped[DropNotStored], 1)
	if c.version == wire.V5 {
		c.acknowledge(p.QoS, p.PacketID, wire.QuotaExceeded, nil)
	}
}

// storeRetained has the retained message that the topic of m has now stored.
func (l *loop) storeRetained(name []byte) {
	switch g := l.b.ledger; {
	case g == nil || hasPrefix(name, "$SYS/"): // they tell of this process
	case g.takes():
		l.sheet().add(change{kind: retain, key: append([]byte(nil), name...)})
	default:
		if l.unsaved == nil {
			l.unsaved = make(map[string]struct{})
		}
		l.unsaved[string(name)] = struct{}{}
	}
}

// saveRetained stores what storeRetained could not.
func (l *loop) saveRetained() {
	for name := range l.unsaved {
		l.notes().add(change{kind: retain, key: []byte(name)})
	}
	l.unsaved = nil
}
