package drive

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"time"

	"hashplus/bench/codec"
)

// Target is the broker, resolved.
type Target struct {
	Addr      netip.AddrPort
	WebSocket bool
	TLS       *tls.Config // nil for none
	Host      string      // of the Host header
	Path      string      // of the request line, WebSocket only
	Header    string      // further lines for the upgrade request, each ended by CRLF
	Version   codec.Version
	Username  string
	Password  string
	KeepAlive uint16 // seconds, 0 for none
}

// Plan is what a Loop carries out. A Loop only reads it.
type Plan struct {
	Target  Target
	Clients []Client
	Flows   []Flow
	Senders []Sender
	// Owner, if not nil, tells whether client gets flow, for clients that
	// divide flows among them.
	Owner   func(client int, flow uint32) bool
	Streams int // how many streams the clients' StreamBase and Flows span
	Orders  int // the same for OrderBase; 0 if no stream is shared

	// Acks makes the broker's acknowledgement of a message its delivery, in
	// counters and latency. For messages that nobody receives yet.
	Acks bool

	Payload int // bytes, at least HeaderSize
	Retain  bool

	Connecting int     // connection attempts at a time, default 64
	SourceSize int     // connections per source address, default 20,000
	DialRate   float64 // connection attempts per second of all processes; 0 is as fast as Connecting allows
	OpenRate   float64 // messages per second of all senders; 0 is closed loop

	Warmup   time.Duration
	Duration time.Duration
	Stall    time.Duration // closed loop: after this long without a delivery what is out counts as gone
	Drain    time.Duration // at the end: how long to wait after the last delivery
}

// Client is one connection.
type Client struct {
	ID   string
	Subs []codec.Subscription

	// The flows it gets: FlowBase ≤ flow < FlowBase+Flows, each accounted for
	// in stream StreamBase + (flow - FlowBase). Several clients may name the
	// same streams: members of a share group do, and clients that divide the
	// flows among them.
	FlowBase, Flows uint32
	StreamBase      uint32

	// Shared says that the streams belong to a group whose members see only a
	// part each, so order is judged in OrderBase + (flow - FlowBase) alone.
	Shared    bool
	OrderBase uint32

	Durable bool // its session outlives the connection
	Leaves  bool // disconnects as soon as it has its subscriptions

	Part  int  // which of the run's processes it belongs to
	Echo  bool // answers each message on its flow's Reply topic; not a delivery
	Stall bool // stops reading when told to; its losses do not count
}

// Flow is a sequence of numbered messages to one topic from one sender.
type Flow struct {
	Topic  string
	Reply  string // where an Echo client answers
	Sender int32
}

// Sender publishes the flows FlowBase ≤ f < FlowBase+Flows, one after the
// other, through one client.
type Sender struct {
	Client          int
	FlowBase, Flows uint32
	QoS             byte
	Fan             int  // deliveries that one message causes
	Burst           int  // messages that leave in one write
	Window          int  // closed loop: messages out, at most; at least Burst
	Once            bool // stops after one message of each flow
}

// crosses tells whether clients of other processes get what senders of part publish.
func (p *Plan) crosses(part int) bool {
	before := make([]uint32, len(p.Flows)+1) // how many of the flows below come from part
	for i := range p.Flows {
		before[i+1] = before[i]
		if p.Clients[p.Senders[p.Flows[i].Sender].Client].Part == part {
			before[i+1]++
		}
	}
	for i := range p.Clients {
		c := &p.Clients[i]
		if c.Part != part && before[c.FlowBase+c.Flows] > before[c.FlowBase] {
			return true
		}
	}
	return false
}

// EnsureDefaults fills what is zero with the documented default.
func (p *Plan) EnsureDefaults() {
	if p.Connecting == 0 {
		p.Connecting = 64
	}
	if p.SourceSize == 0 {
		p.SourceSize = 20000
	}
	if p.Stall == 0 {
		p.Stall = 2 * time.Second
	}
	if p.Drain == 0 {
		p.Drain = time.Second
	}
	if p.Payload == 0 {
		p.Payload = 64
	}
	for i := range p.Senders {
		s := &p.Senders[i]
		s.Burst = max(s.Burst, 1)
		s.Window = max(s.Window, s.Burst)
	}
}

// Validate lists every fault of the plan.
func (p *Plan) Validate() error {
	var errs []error
	if p.Payload < HeaderSize {
		errs = append(errs, errors.New("payload is smaller than the 16 bytes that number and time a message"))
	}
	if p.Payload > codec.MaxPacket/2 {
		errs = append(errs, errors.New("payload is too large"))
	}
	for _, s := range p.Senders {
		if s.QoS > 0 && s.Window > 32767 {
			errs = append(errs, errors.New("window above 32,767 with QoS 1 or 2"))
			break
		}
	}
	for _, c := range p.Clients {
		if int(c.FlowBase+c.Flows) > len(p.Flows) || !c.Echo && c.Flows > 0 && int(c.StreamBase+c.Flows) > p.Streams {
			errs = append(errs, errors.New("client "+c.ID+" names flows that do not exist"))
			break
		}
	}
	return errors.Join(errs...)
}
