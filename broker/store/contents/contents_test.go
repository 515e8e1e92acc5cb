package contents

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"hashplus/broker"
	"hashplus/broker/record"
	"hashplus/broker/store"
)

// sample is a store with one session of each sort, and messages that wait.
func sample(t *testing.T) *store.Memory {
	t.Helper()
	m := store.NewMemory()
	b := &broker.Batch{}
	id := record.MessageID{7}
	message := func(topic, payload string) *record.Message {
		return &record.Message{ID: id, QoS: 1, ExpiryAt: -1, Topic: []byte(topic), Payload: []byte(payload)}
	}
	b.Set(record.AppendMeta(nil, record.MetaNode), make([]byte, 16))
	b.Set(record.AppendOwner(nil, record.KindSession, 1), (&record.Session{
		ClientID: "one", Username: "u", Expiry: 1<<32 - 1, LostAt: 1_000_000_000_000,
	}).Append(nil))
	b.Set(record.AppendWill(nil, 1, 1), (&record.Will{Client: "one", Delay: 5, Message: *message("will", "bye")}).Append(nil))
	b.Set(record.AppendOwner(nil, record.KindSession, 2), (&record.Session{ClientID: "two", Expiry: 60}).Append(nil))
	b.Set(record.AppendSubscription(nil, 1, "a/#"), (&record.Subscription{QoS: 2, NoLocal: true, IDs: []uint32{3}}).Append(nil))
	props := &record.Message{ID: id, QoS: 2, ExpiryAt: -1, Deadline: 1_000_000_000_000, Topic: []byte("a/1"), Payload: []byte{0xFF}, Props: []byte(
		"\x01\x01\x03\x00\x01c\x08\x00\x01r\x09\x00\x01x\x26\x00\x01k\x00\x01v")}
	b.Set(record.AppendRow(nil, record.KindBody, 1, 1), props.Append(nil))
	b.Set(record.AppendRow(nil, record.KindDelivery, 1, 1), (&record.Delivery{QoS: 2, Numbered: true, Number: 4}).Append(nil))
	for owner := range uint64(2) {
		b.Set(record.AppendRow(nil, record.KindDelivery, 1+owner, 2), (&record.Delivery{QoS: 1, Shared: true, ID: id}).Append(nil))
	}
	b.Set(record.AppendShared(nil, id), message("a/2", "for two").Append(nil))
	b.Set(record.AppendRow(nil, record.KindDelivery, 1, 3), (&record.Delivery{QoS: 2, Numbered: true, Number: 5, Released: true}).Append(nil))
	group := record.GroupOwner(nil, "g", "a/#")
	b.Set(record.AppendRow(nil, record.KindDelivery, group, 1), (&record.Delivery{QoS: 1}).Append(nil))
	b.Set(record.AppendRow(nil, record.KindBody, group, 1), message("a/3", "").Append(nil))
	b.Set(record.AppendReceived(nil, 2, 9), nil)
	b.Set(record.AppendRetained(nil, []byte("r")), message("r", "<kept>").Append(nil))
	b.Set(record.AppendOwner(nil, record.KindGone, 3), nil)
	b.Set(record.AppendRow(nil, record.KindDelivery, 3, 1), (&record.Delivery{QoS: 1}).Append(nil)) // its body is removed already
	apply(t, m, b)
	return m
}

func apply(t *testing.T, s broker.Store, b *broker.Batch) {
	t.Helper()
	wait, err := s.Apply(b)
	if err == nil {
		err = wait()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func findings(t *testing.T, s broker.Store) (all []string) {
	t.Helper()
	if err := Check(s, func(f Finding) {
		what := f.String()
		if f.Idle {
			what = "idle: " + what
		}
		all = append(all, what)
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCheck_FindsNothingInWhatABrokerWrites(t *testing.T) {
	if all := findings(t, sample(t)); len(all) > 0 {
		t.Errorf("%q", all)
	}
}

func TestCheck_FindsAndMendRemoves(t *testing.T) {
	for _, c := range []struct {
		name  string
		hurt  func(b *broker.Batch)
		found []string
	}{
		{"body", func(b *broker.Batch) { b.Delete(record.AppendRow(nil, record.KindBody, 1, 1)) }, []string{"its message is missing"}},
		{"body of a group", func(b *broker.Batch) { b.DeleteRange([]byte{record.KindBody, 0x80}, []byte{record.KindBody + 1}) }, []string{"its message is missing"}},
		{"shared body", func(b *broker.Batch) { b.Delete(record.AppendShared(nil, record.MessageID{7})) }, []string{"its message is missing", "its message is missing"}},
		{"delivery", func(b *broker.Batch) { b.Delete(record.AppendRow(nil, record.KindDelivery, 1, 1)) }, []string{"idle: ", "nobody is to get this message"}},
		{"shared deliveries", func(b *broker.Batch) {
			b.Delete(record.AppendRow(nil, record.KindDelivery, 1, 2))
			b.Delete(record.AppendRow(nil, record.KindDelivery, 2, 2))
		}, []string{"idle: ", "nobody is to get this message"}},
		{"session", func(b *broker.Batch) { b.Delete(record.AppendOwner(nil, record.KindSession, 2)) }, []string{"session 2 is missing", "session 2 is missing"}},
		{"value of a session", func(b *broker.Batch) { b.Set(record.AppendOwner(nil, record.KindSession, 2), []byte{1}) }, []string{"corrupt", "session 2 is missing"}},
		{"value of a body", func(b *broker.Batch) { b.Set(record.AppendRow(nil, record.KindBody, 1, 1), []byte{1}) }, []string{"corrupt", "its message is missing"}},
		{"value of a subscription", func(b *broker.Batch) { b.Set(record.AppendSubscription(nil, 1, "b"), []byte{3}) }, []string{"corrupt"}},
		{"value of a retained message", func(b *broker.Batch) {
			b.Set(record.AppendRetained(nil, []byte("x")), (&record.Message{ExpiryAt: -1, Topic: []byte("y")}).Append(nil))
		}, []string{"corrupt"}},
		{"kind", func(b *broker.Batch) { b.Set([]byte("?"), nil); b.Set([]byte{0xFF, 0xFF}, nil) }, []string{"no kind", "no kind"}},
	} {
		s := sample(t)
		b := &broker.Batch{}
		c.hurt(b)
		apply(t, s, b)
		all := findings(t, s)
		for _, want := range c.found {
			if !strings.Contains(strings.Join(all, "\n"), want) {
				t.Errorf("%s: %q is not among %q", c.name, want, all)
			}
		}
		n, err := Mend(s, func(Finding) {})
		for n2 := 1; err == nil && n2 > 0; { // what is removed may leave something without use
			n2, err = Mend(s, func(Finding) {})
		}
		if n != len(all) || err != nil {
			t.Errorf("%s: %d of %d were removed, %v", c.name, n, len(all), err)
		}
		if all := findings(t, s); len(all) > 0 {
			t.Errorf("%s: it still has %q", c.name, all)
		}
	}
}

func TestExport_ALineForEach(t *testing.T) {
	var out bytes.Buffer
	if err := Export(sample(t), &out); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"type":"session","client":"one","username":"u","expiry":-1,"lost":"2001-09-09T01:46:40.000Z"}`,
		`{"type":"session","client":"two","expiry":60}`,
		`{"type":"subscription","client":"one","filter":"a/#","no-local":true,"subscription-identifiers":[3],"qos":2}`,
		`{"type":"inflight","client":"one","qos":2,"topic":"a/1","payload-base64":"/w==","expires":"2001-09-09T01:46:40.000Z","properties":{"content-type":"c","correlation-data-base64":"eA==","payload-format-indicator":1,"response-topic":"r","user-properties":[["k","v"]]}}`,
		`{"type":"queued","client":"one","qos":1,"topic":"a/2","payload":"for two"}`,
		`{"type":"inflight","client":"one","qos":2,"released":true}`,
		`{"type":"queued","client":"two","qos":1,"topic":"a/2","payload":"for two"}`,
		`{"type":"queued","group":"@","qos":1,"topic":"a/3","payload":""}`,
		`{"type":"received","client":"two","packet-id":9}`,
		`{"type":"retained","qos":1,"retain":true,"topic":"r","payload":"<kept>"}`,
		`{"type":"will","client":"one","qos":1,"delay":5,"topic":"will","payload":"bye"}`,
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i, l := range got {
		if before, after, ok := strings.Cut(l, `"group":"`); ok {
			_, after, _ = strings.Cut(after, `"`)
			got[i] = before + `"group":"@"` + after
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestExport_PropertiesThatCannotBeReadAreGivenAsTheyAre(t *testing.T) {
	for _, p := range []string{"\x03", "\x03\x00\x05x", "\x26\x00\x01k\x00", "\x02\x00", "\x99"} {
		if _, ok := properties([]byte(p))["base64"]; !ok {
			t.Errorf("%q: %v", p, properties([]byte(p)))
		}
	}
}

func TestCounts_ByKind(t *testing.T) {
	s := sample(t)
	b := &broker.Batch{}
	b.Set([]byte("?"), []byte("12"))
	apply(t, s, b)
	counts, err := Counts(s)
	if err != nil {
		t.Fatal(err)
	}
	sum, of := 0, map[string]int{}
	for _, c := range counts {
		sum += c.Records
		of[c.Name] = c.Records
	}
	if sum != s.Len() || of["deliveries"] != 6 || of["sessions"] != 2 || of["unknown"] != 1 {
		t.Errorf("%v", counts)
	}
}
