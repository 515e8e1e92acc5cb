package broker

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hashplus/broker/wire"
)

var update = flag.Bool("update", false, "write what the scripts of testdata print into them")

// TestScripts runs the scripts of testdata: blocks of commands, a line of four
// dashes, and what each client received. The outcome is the same on any number
// of loops. The commands are those of script.do.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			everyLoops(func(loops int) {
				got := runScript(t, loops, string(text))
				if *update && loops == 1 {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
					text = []byte(got)
				}
				if got != string(text) {
					t.Errorf("%d loops: %s", loops, firstDifference(string(text), got))
				}
			})
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			have := "nothing"
			if i < len(g) {
				have = g[i]
			}
			return fmt.Sprintf("line %d: got\n\t%s\nwant\n\t%s", i+1, have, w[i])
		}
	}
	return "more than expected: " + strings.Join(g[len(w):], "\n")
}

// script is a broker and the clients that a script names.
type script struct {
	s       *sim
	clients map[string]*scripted
}

type scripted struct {
	*simConn
	v      wire.Version
	closed bool // it was said
	last   uint16
}

// runScript returns text with the output of every block in its place.
func runScript(t *testing.T, loops int, text string) string {
	x := &script{s: newSim(t, loops, Options{SysInterval: -time.Second}), clients: map[string]*scripted{}}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		commands, _, _ := strings.Cut(block, "\n----")
		printed := ""
		acts := false
		for line := range strings.SplitSeq(commands, "\n") {
			out.WriteString(line + "\n")
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				acts = true
				x.do(strings.Fields(line))
				printed += x.received()
			}
		}
		if acts {
			out.WriteString("----\n" + printed)
		}
	}
	return out.String()
}

// words are the arguments of a command: plain ones, and key=value.
type words struct {
	t     testing.TB
	plain []string
	named map[string]string
}

func (w *words) number(name string, otherwise int) int {
	text, ok := w.named[name]
	if !ok {
		return otherwise
	}
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		w.t.Fatalf("%s=%s", name, text)
	}
	return int(n)
}

func (w *words) has(name string) bool { return slices.Contains(w.plain, name) }

// do runs one command:
//
//	connect NAME [v=3.1.1] [clean] [expiry=S] [receive-maximum=N] [keep-alive=S] [will=TOPIC will-delay=S]
//	subscribe NAME FILTER [qos=N] [id=N] [handling=N] [no-local] [as-published]
//	unsubscribe NAME FILTER
//	publish NAME TOPIC PAYLOAD [qos=N] [id=N] [retain] [dup] [expiry=S]
//	puback, pubrec, pubrel, pubcomp NAME ID [reason=N]
//	ping NAME
//	disconnect NAME [reason=N] [expiry=S]
//	cut NAME                  the connection ends without DISCONNECT
//	wait S                    time passes
func (x *script) do(args []string) {
	s := x.s
	w := &words{t: s.t, named: map[string]string{}}
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok {
			w.named[k] = v
		} else {
			w.plain = append(w.plain, a)
		}
	}
	command := w.plain[0]
	if len(w.plain) < 2 {
		s.t.Fatalf("%v lacks an argument", args)
	}
	name := w.plain[1]
	if command == "wait" {
		seconds, err := strconv.ParseFloat(name, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		s.advance(seconds)
		return
	}
	if command == "connect" {
		x.connect(name, w)
		return
	}
	c := x.clients[name]
	if c == nil {
		s.t.Fatalf("%v: there is no %s", args, name)
	}
	switch command {
	case "subscribe":
		c.last++
		p := wire.Subscribe{PacketID: c.last, SubscriptionID: uint32(w.number("id", 0)), Filters: []wire.Subscription{{
			Filter: w.plain[2], QoS: byte(w.number("qos", 0)), NoLocal: w.has("no-local"),
			RetainAsPublished: w.has("as-published"), RetainHandling: byte(w.number("handling", 0))}}}
		c.send(p.Append(nil, c.v))
	case "unsubscribe":
		c.last++
		p := wire.Unsubscribe{PacketID: c.last, Filters: w.plain[2:3]}
		c.send(p.Append(nil, c.v))
	case "publish":
		c.publish(w)
	case "puback", "pubrec", "pubrel", "pubcomp":
		kind := map[string]wire.Type{"puback": wire.PUBACK, "pubrec": wire.PUBREC, "pubrel": wire.PUBREL, "pubcomp": wire.PUBCOMP}
		id, err := strconv.Atoi(w.plain[2])
		if err != nil {
			s.t.Fatal(err)
		}
		c.send(ackOf(kind[command], c.v, uint16(id), wire.ReasonCode(w.number("reason", 0))))
	case "ping":
		c.send([]byte{byte(wire.PINGREQ) << 4, 0})
	case "disconnect":
		p := wire.Disconnect{Reason: wire.ReasonCode(w.number("reason", 0))}
		if expiry := w.number("expiry", -1); expiry >= 0 {
			p.HasSessionExpiry, p.SessionExpiry = true, uint32(expiry)
		}
		b := []byte{byte(wire.DISCONNECT) << 4, 0}
		if c.v == wire.V5 {
			b = p.Append(nil)
		}
		c.send(b)
	case "cut":
		c.closed = true
		c.cut()
	default:
		s.t.Fatalf("no such command: %v", args)
	}
}

func (x *script) connect(name string, w *words) {
	v := map[string]wire.Version{"": wire.V5, "3.1": wire.V31, "3.1.1": wire.V311}[w.named["v"]]
	p := wire.Connect{Version: v, ClientID: name, CleanStart: w.has("clean"), SessionExpiry: uint32(w.number("expiry", 0)),
		ReceiveMaximum: uint16(w.number("receive-maximum", 100)), KeepAlive: uint16(w.number("keep-alive", 0))}
	if topic := w.named["will"]; topic != "" {
		p.Will = &wire.Will{Topic: topic, Payload: []byte("gone"), Delay: uint32(w.number("will-delay", 0)), ExpiryAt: -1}
	}
	old := x.clients[name]
	c := &scripted{simConn: x.s.dial(0), v: v}
	c.send(p.Append(nil))
	if old != nil && !old.closed { // what a take-over told the old connection
		x.clients[name+"(old)"] = old
	}
	x.clients[name] = c
}

func (c *scripted) publish(w *words) {
	o := wire.Outgoing{Version: c.v, QoS: byte(w.number("qos", 0)), PacketID: uint16(w.number("id", 1)),
		Topic: []byte(w.plain[2]), Payload: []byte(w.plain[3]), Retain: w.has("retain"), Dup: w.has("dup")}
	if w.plain[3] == `""` {
		o.Payload = nil
	}
	props := wire.PassProperties{HasExpiry: w.named["expiry"] != "", Expiry: uint32(w.number("expiry", 0))}
	o.Props, o.ExpiryAt = props.Append(nil)
	o.Expiry = props.Expiry
	b := make([]byte, o.Size())
	o.Put(b)
	c.send(b)
}

// received prints what has come to the clients, by their names.
func (x *script) received() string {
	var names []string
	for name := range x.clients {
		names = append(names, name)
	}
	slices.Sort(names)
	var out strings.Builder
	for _, name := range names {
		c := x.clients[name]
		for _, g := range c.take() {
			fmt.Fprintf(&out, "%s <- %s\n", name, describe(x.s.t, g, c.v))
		}
		if c.gone && !c.closed {
			c.closed = true
			fmt.Fprintf(&out, "%s: closed\n", name)
		}
	}
	return out.String()
}

// describe prints a packet of the server's.
func describe(t testing.TB, g got, v wire.Version) string {
	text := g.h.Type.String()
	switch g.h.Type {
	case wire.CONNACK:
		text += " " + reasonText(g.body[1], v)
		if g.body[0] == 1 {
			text += ", session present"
		}
	case wire.PUBLISH:
		ids, err := g.pub.DecodeFromServer(g.h, g.body, v, &wire.Limits{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf(" %s %q", g.pub.Topic, g.pub.Payload)
		if g.pub.QoS > 0 {
			text += fmt.Sprintf(" qos=%d id=%d", g.pub.QoS, g.pub.PacketID)
		}
		if g.pub.Dup {
			text += " dup"
		}
		if g.pub.Retain {
			text += " retain"
		}
		if g.pub.ExpiryAt >= 0 {
			text += fmt.Sprintf(" expiry=%d", g.pub.Expiry)
		}
		if slices.Sort(ids); len(ids) > 0 { // in no order that means anything
			text += fmt.Sprint(" subscriptions=", ids)
		}
	case wire.SUBACK, wire.UNSUBACK:
		text += fmt.Sprintf(" id=%d", binary.BigEndian.Uint16(g.body))
		rest := g.body[2:]
		if v == wire.V5 {
			rest = bytes.TrimPrefix(rest, []byte{0})
		}
		for _, b := range rest {
			text += fmt.Sprintf(" %#02x", b)
		}
	case wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP:
		text += fmt.Sprintf(" id=%d", binary.BigEndian.Uint16(g.body))
		if len(g.body) > 2 {
			text += " " + reasonText(g.body[2], v)
		}
	case wire.DISCONNECT:
		if len(g.body) > 0 {
			text += " " + reasonText(g.body[0], v)
		}
	}
	return text
}

func reasonText(b byte, v wire.Version) string {
	if v != wire.V5 {
		return fmt.Sprint("code ", b)
	}
	return wire.ReasonCode(b).String()
}
