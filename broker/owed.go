package broker

import "hashplus/broker/wire"

// owed are a client's answers that wait until something is stored, and those
// behind them: answers leave in the order in which what they answer came
// [MQTT-4.6.0-2] [MQTT-4.6.0-3]. It is owned by the client's loop.
type owed struct {
	list []answer
	gone int    // of list, from its start
	head uint64 // number of list[gone]
}

// answer is an acknowledgement, or a whole packet, to a client.
type answer struct {
	settled bool
	t       wire.Type
	reason  wire.ReasonCode
	id      uint16
	packet  []byte // in place of t, id and reason
	then    func() // called when it has been written
}

func (o *owed) none() bool { return o.gone == len(o.list) }

// next is the number that the next answer of the list gets.
func (o *owed) next() uint64 { return o.head + uint64(len(o.list)-o.gone) }

// answer writes a at once, or behind those that wait.
func (c *client) answer(a answer) {
	if c.owed.none() {
		c.give(&a)
		return
	}
	a.settled = true
	c.owed.list = append(c.owed.list, a)
}

// owe writes a when p is stored.
func (c *client) owe(p *page, a answer) {
	o := &c.owed
	p.acks = append(p.acks, ackRef{c, o.next()})
	p.size += changeSize
	o.list = append(o.list, a)
}

func (c *client) give(a *answer) {
	if a.packet != nil {
		c.write(a.packet)
	} else {
		c.writeAck(a.t, a.id, a.reason)
	}
	if a.then != nil {
		a.then()
	}
}

// settle lets answer number n leave, as soon as those before it have.
func (c *client) settle(n uint64) {
	o := &c.owed
	if c.state != open || n < o.head {
		return
	}
	o.list[o.gone+int(n-o.head)].settled = true
	for !o.none() && o.list[o.gone].settled {
		a := o.list[o.gone]
		o.list[o.gone] = answer{}
		o.gone++
		o.head++
		c.give(&a)
		if c.state != open {
			return
		}
	}
	switch {
	case o.none():
		o.list, o.gone = o.list[:0], 0
		if cap(o.list) > 64 {
			o.list = nil
		}
	case o.gone > 64 && o.gone > len(o.list)/2:
		o.list = append(o.list[:0], o.list[o.gone:]...)
		o.gone = 0
	}
}
