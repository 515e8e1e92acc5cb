package conformance

import (
	"strings"
	"testing"
)

func TestTopic_MultiLevelWildcardStandsLast(t *testing.T) { // [MQTT-4.7.1-1] [MQTT3-4.7.1-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, f := range []string{"a#", "a/#/b", "#/a", "##", "a/#b", "a/b#", "#/"} {
			refusedFilter(t, s, v, f)
		}
	})
}

func TestTopic_SingleLevelWildcardFillsALevel(t *testing.T) { // [MQTT-4.7.1-2] [MQTT3-4.7.1-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, f := range []string{"a+", "+a", "a/b+/c", "++", "a/+b", "+#", "a/#+"} {
			refusedFilter(t, s, v, f)
		}
	})
}

func TestTopic_FilterIsNotEmpty(t *testing.T) { // [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) { refusedFilter(t, s, v, "") })
}

func TestTopic_HasNoNull(t *testing.T) { // [MQTT-4.7.3-2] [MQTT3-4.7.3-2]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		for _, b := range [][]byte{subscribe(v, 1, nil, sub{"\x00", 0}), unsubscribe(v, 1, "a\x00"), (&publish{topic: "\x00a"}).bytes(v)} {
			c := join(t, s, v)
			c.send(b)
			c.ejected(0x81, 0x8f, 0x90)
		}
	})
}

func TestTopic_Matching(t *testing.T) { // [MQTT-3.3.2-3] [MQTT3-3.3.2-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		// Every filter and name below begins with a level of this test's own.
		for _, x := range []struct {
			filter  string
			match   string
			nothing string
		}{
			{"P", "P", "P/|P/a|p|PP"},
			{"P/#", "P|P/|P/a|P/a/b|P//", "PP|PP/a|p/a"},
			{"P/+", "P/|P/a|P/$a", "P|P/a/b|P//"},
			{"P/+/c", "P/a/c|P//c", "P/c|P/a/b/c|P/a/C|P/a/c/"},
			{"P/+/+", "P/a/b|P//|P/a/", "P/a|P/a/b/c"},
			{"P/+/#", "P/a|P/|P/a/b/c", "P"},
			{"P/a/#", "P/a|P/a/|P/a/b", "P/ab|P/A/b|P"},
			{"P//b", "P//b", "P/b|P/a/b"},
			{"P/é", "P/é", "P/e\u0301|P/e|P/É"},
		} {
			p := unique()
			own := func(s string) string { return strings.ReplaceAll(s, "P", p) }
			c, pub := join(t, s, v), join(t, s, v)
			c.listen(0, own(x.filter))
			for name := range strings.SplitSeq(x.nothing, "|") {
				pub.post(publish{topic: own(name), payload: x.filter + " must not match " + name})
			}
			for name := range strings.SplitSeq(x.match, "|") {
				pub.post(publish{topic: own(name), payload: x.filter})
				c.message(own(name), x.filter)
			}
			c.nothing(pub)
		}
	})
}

func TestTopic_FirstLevelWildcards(t *testing.T) { // [MQTT-3.3.2-3] [MQTT3-3.3.2-3]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(0, "+/"+c.id, "/+/"+c.id+"/#")
		for _, name := range []string{"a/" + c.id, "/" + c.id, "//" + c.id, "/b/" + c.id + "/c"} {
			pub.post(publish{topic: name, payload: name})
			c.message(name, name)
		}
		pub.post(publish{topic: c.id, payload: "x"})
		pub.post(publish{topic: "a/b/" + c.id, payload: "x"})
		c.nothing(pub)
	})
}

func TestTopic_WildcardsDoNotMatchDollarNames(t *testing.T) { // [MQTT-4.7.2-1] [MQTT3-4.7.2-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		own := unique()
		c, pub, exact := join(t, s, v), join(t, s, v), join(t, s, v)
		c.listen(0, "+/"+own, "+/"+own+"/#", "+/+/"+own, "$share/g"+own+"/+/"+own)
		exact.listen(0, "$x/#")
		for _, name := range []string{"$x/" + own, "$x/y/" + own, "$x/" + own + "/z"} {
			pub.post(publish{topic: name, payload: name, retain: true})
			for exact.await(tPUBLISH).pub.topic != name { // other tests may publish there too
			}
		}
		c.nothing(pub)
		c.listen(0, "+/"+own) // retained ones neither
		c.nothing(pub)
	})
}

func TestTopic_HashDoesNotMatchDollarNames(t *testing.T) { // [MQTT-4.7.2-1] [MQTT3-4.7.2-1]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		own := unique()
		c, pub, exact := join(t, s, v), join(t, s, v), join(t, s, v)
		pub.post(publish{topic: "$x/retained" + own, payload: "x", retain: true, qos: 1})
		c.listen(0, "#")
		exact.listen(0, "$x/"+own)
		pub.post(publish{topic: "$x/" + own, payload: "x"})
		exact.message("$x/"+own, "x")
		pub.post(publish{topic: own, payload: "end"})
		for {
			p := c.await(tPUBLISH)
			if strings.HasPrefix(p.pub.topic, "$") {
				t.Fatalf("%v", p)
			}
			if p.pub.topic == own {
				return
			}
		}
	})
}

func TestTopic_SysIsReadable(t *testing.T) {
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c := join(t, s, v)
		c.listen(0, "$SYS/#")
		if p := c.await(tPUBLISH); !strings.HasPrefix(p.pub.topic, "$SYS/") || p.pub.payload == "" {
			t.Errorf("%v", p)
		}
	})
}

func TestTopic_IsNotNormalized(t *testing.T) { // [MQTT-4.7.3-4] [MQTT3-4.7.3-4]
	t.Parallel()
	s := startBroker(t, "")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		composed, decomposed := c.id+"/\u00e9", c.id+"/e\u0301"
		c.listen(0, composed)
		pub.post(publish{topic: decomposed, payload: "x"})
		pub.post(publish{topic: c.id + "/\u00c9", payload: "x"})
		pub.post(publish{topic: c.id + "/\u00e9 ", payload: "x"})
		pub.post(publish{topic: c.id + "//\u00e9", payload: "x"})
		pub.post(publish{topic: c.id + "/./\u00e9", payload: "x"})
		c.nothing(pub)
		for _, odd := range []string{c.id + "/ ", c.id + "/\u200b", c.id + "/\ufffd", c.id + "/%2F", c.id + "/\\"} {
			c.listen(0, odd)
			pub.post(publish{topic: odd, payload: "x"})
			c.message(odd, "x")
		}
	})
}

func TestTopic_OfTheGreatestLength(t *testing.T) { // [MQTT-4.7.3-3] [MQTT3-4.7.3-3]
	t.Parallel()
	s := startBroker(t, "long")
	each(t, func(t *testing.T, v byte) {
		c, pub := join(t, s, v), join(t, s, v)
		c.listen(1, c.id+"/#")
		topic := c.id + "/" + strings.Repeat("x", 65535-1-len(c.id))
		pub.post(publish{topic: topic, payload: "x", qos: 1})
		c.take(topic, "x")
		c.unsubscribe(c.id + "/#")
		c.listen(1, topic)
		pub.post(publish{topic: topic, payload: "y", qos: 1})
		c.take(topic, "y")
	})
}
