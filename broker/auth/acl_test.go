package auth

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hashplus/broker"
	"hashplus/topic"
)

func mustACL(t testing.TB, text string) *ACL {
	t.Helper()
	a, err := ParseACL("acl", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// asked is one question to an ACL and the answer that it must give.
type asked struct {
	client, user string
	verb         string // publish, receive, subscribe
	topic        string
	want         bool
}

func (q asked) answer(a *ACL) bool {
	id := &broker.Identity{ClientID: q.client, Username: q.user}
	switch q.verb {
	case "publish":
		return a.CanPublish(id, []byte(q.topic))
	case "receive":
		return a.CanReceive(id, []byte(q.topic))
	case "subscribe":
		return a.CanSubscribe(id, q.topic)
	}
	panic(q.verb)
}

func check(t *testing.T, a *ACL, rows ...asked) {
	t.Helper()
	for _, q := range rows {
		if got := q.answer(a); got != q.want {
			t.Errorf("client %q, user %q: %s %q: %v", q.client, q.user, q.verb, q.topic, got)
		}
	}
}

func TestACL_WhatNoRuleAllowsIsDenied(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "comment": "# nothing\n", "other": "topic read b\n"} {
		a := mustACL(t, text)
		for _, verb := range []string{"publish", "receive", "subscribe"} {
			if (asked{"c", "", verb, "a", false}).answer(a) {
				t.Errorf("%s: %s is allowed", name, verb)
			}
		}
	}
}

func TestACL_AccessWords(t *testing.T) {
	a := mustACL(t, "topic read r\ntopic write w\ntopic readwrite rw\ntopic bare\ntopic read a b\n\ttopic\twrite\t t \r\n")
	check(t, a,
		asked{"c", "", "receive", "r", true}, asked{"c", "", "subscribe", "r", true}, asked{"c", "", "publish", "r", false},
		asked{"c", "", "receive", "w", false}, asked{"c", "", "subscribe", "w", false}, asked{"c", "", "publish", "w", true},
		asked{"c", "", "receive", "rw", true}, asked{"c", "", "subscribe", "rw", true}, asked{"c", "", "publish", "rw", true},
		asked{"c", "", "receive", "bare", true}, asked{"c", "", "subscribe", "bare", true}, asked{"c", "", "publish", "bare", true},
		asked{"c", "", "receive", "a b", true}, asked{"c", "", "publish", "t", true})
}

func TestACL_RulesHoldForTheUserAboveThem(t *testing.T) {
	a := mustACL(t, `
topic readwrite open
user alice
topic readwrite alice/#
user bob smith
topic readwrite bob/#
pattern read news
user alice
topic write more
`)
	check(t, a,
		asked{"c", "", "publish", "open", true}, asked{"c", "alice", "publish", "open", false},
		asked{"c", "alice", "publish", "alice/x", true}, asked{"c", "alice", "publish", "more", true},
		asked{"c", "alice", "publish", "bob/x", false}, asked{"c", "bob smith", "publish", "bob/x", true},
		asked{"c", "", "publish", "alice/x", false}, asked{"c", "carol", "publish", "alice/x", false},
		asked{"c", "", "receive", "news", true}, asked{"c", "carol", "receive", "news", true}, asked{"c", "bob smith", "publish", "news", false})
}

func TestACL_DenyWinsWhereverItStands(t *testing.T) {
	for _, text := range []string{
		"topic readwrite a/#\ntopic deny a/secret",
		"topic deny a/secret\ntopic readwrite a/#",
		"topic deny a/secret\ntopic readwrite a/secret\ntopic readwrite a/#",
		"topic readwrite a/#\npattern deny a/secret",
		"pattern deny +/secret\ntopic readwrite a/#",
		"pattern readwrite a/#\ntopic deny a/secret",
	} {
		check(t, mustACL(t, text),
			asked{"c", "", "publish", "a/secret", false}, asked{"c", "", "receive", "a/secret", false},
			asked{"c", "", "subscribe", "a/secret", false}, asked{"c", "", "publish", "a/b", true},
			asked{"c", "", "subscribe", "a/b", true}, asked{"c", "", "subscribe", "a/#", true})
	}
}

func TestACL_SubscriptionNeedsARuleThatCoversIt(t *testing.T) {
	a := mustACL(t, "topic read a/+\ntopic read b/#\ntopic read c/d\ntopic deny b/x/#")
	check(t, a,
		asked{"c", "", "subscribe", "a/b", true}, asked{"c", "", "subscribe", "a/+", true}, asked{"c", "", "subscribe", "a/", true},
		asked{"c", "", "subscribe", "a/#", false}, asked{"c", "", "subscribe", "a", false}, asked{"c", "", "subscribe", "a/b/c", false},
		asked{"c", "", "subscribe", "b", true}, asked{"c", "", "subscribe", "b/#", true}, asked{"c", "", "subscribe", "b/+/c", true},
		asked{"c", "", "subscribe", "b/x", false}, asked{"c", "", "subscribe", "b/x/+", false}, asked{"c", "", "subscribe", "b/x/#", false},
		asked{"c", "", "subscribe", "b/+", true}, asked{"c", "", "receive", "b/x", false},
		asked{"c", "", "subscribe", "c/d", true}, asked{"c", "", "subscribe", "c/+", false}, asked{"c", "", "subscribe", "+/d", false},
		asked{"c", "", "subscribe", "#", false}, asked{"c", "", "subscribe", "+/+", false})
}

func TestACL_WildcardDoesNotReachDollarNames(t *testing.T) { // [MQTT-4.7.2-1]
	for _, text := range []string{"topic #", "topic +/#", "pattern #", "pattern +/#", "topic +/a\ntopic +", "pattern +/a\npattern +"} {
		a := mustACL(t, text)
		check(t, a,
			asked{"c", "", "publish", "$x/a", false}, asked{"c", "", "receive", "$SYS/a", false}, asked{"c", "", "receive", "$SYS", false},
			asked{"c", "", "subscribe", "$SYS/#", false}, asked{"c", "", "subscribe", "$SYS/+", false}, asked{"c", "", "subscribe", "$SYS/a", false},
			asked{"c", "", "publish", "b/a", true})
	}
	for _, text := range []string{"topic #", "topic +/#", "pattern #", "pattern +/#"} { // which are the same
		check(t, mustACL(t, text), asked{"c", "", "subscribe", "#", true}, asked{"c", "", "subscribe", "+/#", true})
	}
	check(t, mustACL(t, "topic #\ntopic read $SYS/#\npattern write $x/%c"),
		asked{"c", "", "receive", "$SYS/a", true}, asked{"c", "", "subscribe", "$SYS/#", true}, asked{"c", "", "subscribe", "$SYS/+/b", true},
		asked{"c", "", "publish", "$SYS/a", false}, asked{"c", "", "publish", "$x/c", true}, asked{"c", "", "subscribe", "#", true},
		asked{"c", "", "subscribe", "+/#", true})
}

func TestACL_PatternsNameTheClient(t *testing.T) {
	a := mustACL(t, "pattern readwrite u/%u/#\npattern read c/%c/+\npattern write dev-%c.%u/up\npattern deny +/+/%u-secret")
	check(t, a,
		asked{"c1", "alice", "publish", "u/alice/x", true}, asked{"c1", "alice", "subscribe", "u/alice/#", true},
		asked{"c1", "alice", "publish", "u/bob/x", false}, asked{"c1", "alice", "subscribe", "u/+/#", false}, asked{"c1", "alice", "subscribe", "u/#", false},
		asked{"c1", "alice", "receive", "c/c1/x", true}, asked{"c1", "alice", "receive", "c/c2/x", false}, asked{"c1", "alice", "subscribe", "c/c1/+", true},
		asked{"c1", "alice", "subscribe", "c/c1/#", false}, asked{"c1", "alice", "subscribe", "c/+/+", false},
		asked{"c1", "alice", "publish", "dev-c1.alice/up", true}, asked{"c1", "alice", "publish", "dev-c1.bob/up", false},
		asked{"c1", "alice", "publish", "dev-c1.alicex/up", false}, asked{"c1", "alice", "publish", "dev-c1./up", false},
		asked{"c1", "alice", "publish", "u/alice/alice-secret", false}, asked{"c1", "alice", "subscribe", "u/alice/alice-secret", false})
}

// A client chooses its identifier, and often its username.
func TestACL_NamesDoNotWidenPatterns(t *testing.T) {
	a := mustACL(t, "pattern readwrite %c/#\npattern readwrite u/%u/x\npattern readwrite d/x%c/+")
	for _, name := range []string{"+", "#", "a/b", "a/#", "/", "+/+", "a+", "b#", "", "$SYS"} {
		for _, topic := range []string{"a/b", "a", "b/c", "a/b/c", "/", "//", "u/a/x", "u//x", "u/a/b/x", "d/xa/b", "d/x/b", "$SYS/a", "$SYS", "#", "+/#", "a/#", "+/b", "u/+/x", "u/#"} {
			// $SYS is an ordinary name but at the beginning.
			for _, verb := range []string{"publish", "receive", "subscribe"} {
				if verb != "subscribe" && strings.ContainsAny(topic, "+#") {
					continue
				}
				check(t, a, asked{name, name, verb, topic, false})
			}
		}
	}
	check(t, a, asked{"$SYS", "$SYS", "publish", "u/$SYS/x", true}, asked{"a", "", "publish", "a/b", true})
}

func TestParseACL_ErrorsNameLineFaultAndWhatIsAllowed(t *testing.T) {
	for line, want := range map[string]string{
		"topic reed a":             `acl:2: unknown access "reed": it is read, write, readwrite or deny (a filter with a space in it needs one of them before it)`,
		"topic":                    "acl:2: no filter: it is topic [read|write|readwrite|deny] FILTER",
		"topic deny":               "acl:2: no filter: it is topic [read|write|readwrite|deny] FILTER",
		"pattern read  ":           "acl:2: no filter: it is pattern [read|write|readwrite|deny] FILTER",
		"user":                     "acl:2: user without a name: it is user NAME",
		"USER a":                   `acl:2: unknown keyword: a line begins with user, topic, pattern or, for a comment, #`,
		"topic read a/#/b":         `acl:2: the filter "a/#/b" is not valid: # is not alone in the last level [MQTT-4.7.1-1]; + or # fill a level, # only the last`,
		"pattern a+":               `acl:2: the filter "a+" is not valid: + does not fill its level [MQTT-4.7.1-2]; + or # fill a level, # only the last`,
		"topic read $share/g/a":    `acl:2: the filter "$share/g/a" names a share group: give its filter alone, it holds for every group`,
		"topic deny home/%u":       `acl:2: %u or %c in the topic rule "home/%u": only a pattern rule replaces them`,
		"topic read a\xff":         "acl:2: the line is not UTF-8",
		"user \x00\xc0":            "acl:2: the line is not UTF-8",
		"topic write a\x00b":       `acl:2: the filter "a\x00b" is not valid: U+0000 in a topic [MQTT-4.7.3-2]; + or # fill a level, # only the last`,
		"topic readwrite\t $share": "",
	} {
		_, err := ParseACL("acl", []byte("topic read x\n"+line+"\ntopic read y\n"))
		if got := fmt.Sprint(err); want != "" && got != want || want == "" && err != nil {
			t.Errorf("%q: %s", line, got)
		}
	}
}

func TestParseACL_EveryFaultyLineIsNamed(t *testing.T) {
	_, err := ParseACL("acl", []byte("x\ntopic read a\ny\n"))
	if got := strings.Split(fmt.Sprint(err), "\n"); len(got) != 2 || !strings.HasPrefix(got[0], "acl:1: ") || !strings.HasPrefix(got[1], "acl:3: ") {
		t.Errorf("%q", got)
	}
	_, err = ParseACL("acl", bytes.Repeat([]byte("x\n"), 1000))
	if got := strings.Count(fmt.Sprint(err), "\n"); got != maxFaults {
		t.Errorf("%d lines", got)
	}
}

func TestLoadACL_EclipseSuite(t *testing.T) {
	a, err := LoadACL("testdata/eclipse.acl")
	if err != nil {
		t.Fatal(err)
	}
	check(t, a,
		asked{"c", "", "subscribe", "test/nosubscribe", false}, asked{"c", "", "subscribe", "#", true}, asked{"c", "", "subscribe", "test/+", true},
		asked{"c", "", "receive", "test/nosubscribe", false}, asked{"c", "", "publish", "TopicA/B", true}, asked{"c", "", "publish", "$TopicA/B", true})
	if _, err := LoadACL("testdata/none"); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}

// naiveRule is a rule as the documentation of ParseACL puts it.
type naiveRule struct {
	user    string
	pattern bool
	access  string
	filter  string
}

// reaches substitutes literally and asks the definition of matching.
func (r naiveRule) reaches(client, user, name string) bool {
	filter := r.filter
	if r.pattern {
		for _, v := range []struct{ mark, value string }{{"%c", client}, {"%u", user}} {
			if !strings.Contains(filter, v.mark) {
				continue
			}
			if v.value == "" || strings.ContainsAny(v.value, "+#/") || strings.HasPrefix(filter, v.mark) && v.value[0] == '$' {
				return false
			}
			filter = strings.ReplaceAll(filter, v.mark, v.value)
		}
	} else if r.user != user {
		return false
	}
	return topic.Matches(filter, name)
}

// names are all names of up to four levels over an alphabet that has a text
// that no rule contains.
var names = func() (all []string) {
	level := []string{"a", "b", "", "$", "z"}
	last := level
	for depth := 1; ; depth++ {
		all = append(all, last...)
		if depth == 4 {
			return all
		}
		var next []string
		for _, l := range last {
			for _, x := range level {
				next = append(next, l+"/"+x)
			}
		}
		last = next
	}
}()

func randomFilter(r *rand.Rand, levels ...string) string {
	var f []string
	for range 1 + r.IntN(3) {
		f = append(f, levels[r.IntN(len(levels))])
	}
	if r.IntN(3) == 0 {
		f = append(f[:len(f)-1], "#")
	}
	if s := strings.Join(f, "/"); s != "" {
		return s
	}
	return "+"
}

func TestACL_AgreesWithItsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	clients := []string{"a", "b", "$", "+", "#", "a/b"}
	users := []string{"", "a", "b", "$", "+", "a/b"}
	granted, clear, doubtful := 0, 0, 0
	for range 300 {
		var rules []naiveRule
		var text strings.Builder
		for range 1 + r.IntN(8) {
			n := naiveRule{user: users[r.IntN(3)], pattern: r.IntN(3) == 0,
				access: []string{"read", "write", "readwrite", "deny", "read", "readwrite"}[r.IntN(6)]}
			if n.pattern {
				n.filter = randomFilter(r, "a", "b", "+", "%c", "%u", "$")
				fmt.Fprintf(&text, "pattern %s %s\n", n.access, n.filter)
				rules = append(rules, n)
				continue
			}
			n.filter = randomFilter(r, "a", "b", "+", "", "$")
			if n.user == "" { // only above the first user line
				rest := text.String()
				text.Reset()
				fmt.Fprintf(&text, "topic %s %s\n%s", n.access, n.filter, rest)
			} else {
				fmt.Fprintf(&text, "user %s\ntopic %s %s\n", n.user, n.access, n.filter)
			}
			rules = append(rules, n)
		}
		a := mustACL(t, text.String())
		id := &broker.Identity{ClientID: clients[r.IntN(len(clients))], Username: users[r.IntN(len(users))]}
		if r.IntN(3) == 0 {
			publish, subscribe := randomFilter(r, "a", "b", "+", "$"), randomFilter(r, "a", "+", "", "$")
			c, err := NewClaims([]string{publish}, []string{subscribe})
			if err != nil {
				t.Fatal(err)
			}
			id.Data = c
			rules = append(rules, naiveRule{user: id.Username, access: "write", filter: publish},
				naiveRule{user: id.Username, access: "read", filter: subscribe})
		}
		rights := func(name, access string) (allowed bool) {
			for _, n := range rules {
				if !n.reaches(id.ClientID, id.Username, name) {
					continue
				}
				if n.access == "deny" {
					return false
				}
				allowed = allowed || n.access == access || n.access == "readwrite"
			}
			return allowed
		}
		for range 40 {
			name := names[r.IntN(len(names))]
			if name == "" {
				continue
			}
			if got, want := a.CanPublish(id, []byte(name)), rights(name, "write"); got != want {
				t.Fatalf("%s%+v: publish %q: %v", &text, id, name, got)
			}
			if got, want := a.CanReceive(id, []byte(name)), rights(name, "read"); got != want {
				t.Fatalf("%s%+v: receive %q: %v", &text, id, name, got)
			}
			if e := a.ExplainPublish(id, name); e.Allowed != rights(name, "write") || e.Allowed && e.Rule == "" {
				t.Fatalf("%s%+v: publish %q is explained by %+v", &text, id, name, e)
			}
		}
		for range 10 {
			filter := randomFilter(r, "a", "b", "+", "", "$")
			want := naiveSubscribe(rules, id, filter)
			if got := a.CanSubscribe(id, filter); got != want {
				t.Fatalf("%s%+v: subscribe %q: %v", &text, id, filter, got)
			}
			if e := a.ExplainSubscribe(id, filter); e.Allowed != want || e.Allowed && e.Rule == "" {
				t.Fatalf("%s%+v: subscribe %q is explained by %+v", &text, id, filter, e)
			}
			if want {
				granted++
			}
			whole := want && !slices.ContainsFunc(names, func(n string) bool {
				return n != "" && topic.Matches(filter, n) && !rights(n, "read")
			})
			all := a.CanReceiveAll(id, filter)
			if all && !whole {
				t.Fatalf("%s%+v: %q is cleared, but not all that it matches may be read", &text, id, filter)
			}
			if whole {
				clear++
				if !all {
					doubtful++
				}
			}
		}
	}
	if granted < 100 || clear < 80 {
		t.Errorf("only %d subscriptions were granted, %d wholly: the comparison says little", granted, clear)
	}
	// Only a deny for a name that no topic can hold may be taken for one.
	if doubtful > clear/10 {
		t.Errorf("of %d subscriptions that could be cleared %d were not", clear, doubtful)
	}
}

// naiveSubscribe looks at every name that filter matches.
func naiveSubscribe(rules []naiveRule, id *broker.Identity, filter string) bool {
	matched := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" || !topic.Matches(filter, n) })
	covers := func(r naiveRule) bool {
		return !slices.ContainsFunc(matched, func(n string) bool { return !r.reaches(id.ClientID, id.Username, n) })
	}
	allowed := false
	for _, r := range rules {
		switch {
		case !covers(r):
		case r.access == "deny":
			return false
		case r.access != "write":
			allowed = true
		}
	}
	return allowed
}

func TestACL_AnswersDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	a := mustACL(t, "user alice\ntopic read a/+/c/#\ntopic deny a/b/c/d\npattern readwrite u/%u-%c/#\npattern read +/%c")
	id := &broker.Identity{ClientID: "c1", Username: "alice"}
	name := []byte("u/alice-c1/x/y")
	if n := testing.AllocsPerRun(100, func() {
		if !a.CanPublish(id, name) || !a.CanReceive(id, name) || !a.CanSubscribe(id, "a/x/c/#") {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkACL_CanReceive(b *testing.B) {
	for _, rules := range []int{1, 100, 10_000} {
		var text strings.Builder
		text.WriteString("pattern readwrite u/%u/#\nuser alice\n")
		for i := range rules {
			fmt.Fprintf(&text, "topic read site/%d/+/state\n", i)
		}
		a := mustACL(b, text.String())
		id := &broker.Identity{ClientID: "c1", Username: "alice"}
		name := []byte(fmt.Sprintf("site/%d/lamp/state", rules/2))
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !a.CanReceive(id, name) {
					b.Fatal("refused")
				}
			}
		})
	}
}

// FuzzACL parses any text, asks what it allows, and holds the answers to the
// definition of matching: what nobody denies may be had only through a rule,
// and a filter that is granted never goes beyond names that are.
func FuzzACL(f *testing.F) {
	f.Add([]byte("topic readwrite #\ntopic deny a/b\n"), "c", "u", "a/+", "a/b")
	f.Add([]byte("user u\ntopic read a/#\npattern write %c/%u/+\n"), "c", "u", "a/#", "c/u/x")
	f.Add([]byte("pattern readwrite %c%u/#\r\n# c\r\n\r\nuser x y\r\n"), "+", "#", "+/#", "$SYS/x")
	f.Fuzz(func(t *testing.T, text []byte, client, user, filter, name string) {
		a, err := ParseACL("acl", text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "acl:") {
				t.Fatalf("no place in %q", err)
			}
			return
		}
		if topic.CheckFilter(filter) != nil || topic.CheckName(name) != nil {
			return
		}
		id := &broker.Identity{ClientID: client, Username: user}
		whole, one := a.rights(id, filter), a.rights(id, name)
		if a.CanReceiveAll(id, filter) && topic.Matches(filter, name) && !a.CanReceive(id, []byte(name)) {
			t.Fatalf("%q is cleared, but %q may not be read", filter, name)
		}
		if a.ExplainSubscribe(id, filter).Allowed != a.CanSubscribe(id, filter) || a.ExplainPublish(id, name).Allowed != a.CanPublish(id, []byte(name)) {
			t.Fatal("the explanations disagree with the answers")
		}
		if topic.Matches(filter, name) && whole&^one != 0 {
			t.Fatalf("%v for %q, only %v for %q", whole, filter, one, name)
		}
		if a.CanPublish(id, []byte(name)) != (one&(write|deny) == write) || a.CanReceive(id, []byte(name)) != (one&(read|deny) == read) ||
			a.CanSubscribe(id, filter) != (whole&(read|deny) == read) {
			t.Fatal("the answers disagree with the rights")
		}
	})
}

// The denies that a subscription runs into are found within a bounded time: past
// it each message is asked for.
func TestACL_ClearingIsBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("topic read #\ntopic deny x/secret\n")
	for i := range 2 * maxSteps {
		fmt.Fprintf(&text, "topic read a/%d/b\n", i)
	}
	a := mustACL(t, text.String())
	id := &broker.Identity{ClientID: "c"}
	for filter, want := range map[string]bool{"a/#": true, "a/+/b": true, "x/y": true, "x/+": false, "+/secret": false, "#": false} {
		if got := a.CanReceiveAll(id, filter); got != want {
			t.Errorf("%s: %v", filter, got)
		}
	}
	text.WriteString("topic deny a/z/c\n")
	if mustACL(t, text.String()).CanReceiveAll(id, "a/+/b") {
		t.Error("cleared after more steps than are allowed")
	}
}

func TestACL_ClaimsAddToTheRulesAndDeniesHoldForThem(t *testing.T) {
	claims, err := NewClaims([]string{"out/+"}, []string{"in/#", "closed/x"})
	if err != nil {
		t.Fatal(err)
	}
	nothing, err := NewClaims([]string{}, []string{})
	if err != nil {
		t.Fatal(err)
	}
	half, err := NewClaims(nil, []string{"in/#"})
	if err != nil {
		t.Fatal(err)
	}
	file := mustACL(t, "user u\ntopic readwrite own/#\npattern deny closed/#\npattern deny in/secret\n")
	for name, c := range map[string]struct {
		acl                        *ACL
		data                       any
		publishes, receives, takes string // of the names and filters below
	}{
		"file alone":             {file, nil, "own/x", "own/x", "own/x own/#"},
		"file and claims":        {file, claims, "own/x out/x", "own/x in/x", "own/x own/# in/x in/#"},
		"file and empty claims":  {file, nothing, "own/x", "own/x", "own/x own/#"},
		"claims alone":           {Open(), claims, "out/x", "in/x in/secret closed/x", "in/x in/secret in/# closed/x"},
		"empty claims alone":     {Open(), nothing, "", "", ""},
		"claims to receive only": {Open(), half, "own/x out/x in/x in/secret closed/x $SYS/x", "in/x in/secret", "in/x in/secret in/#"},
		"nothing":                {Open(), nil, "own/x out/x in/x in/secret closed/x $SYS/x", "own/x out/x in/x in/secret closed/x $SYS/x", "own/x own/# out/x in/x in/secret in/# closed/x $SYS/x #"},
		"data of another kind":   {file, "claims", "own/x", "own/x", "own/x own/#"},
	} {
		id := &broker.Identity{ClientID: "c", Username: "u", Data: c.data}
		var publishes, receives, takes []string
		for _, f := range strings.Fields("own/x own/# out/x in/x in/secret in/# closed/x $SYS/x #") {
			if c.acl.CanSubscribe(id, f) {
				takes = append(takes, f)
			}
			if strings.HasSuffix(f, "#") {
				continue
			}
			if c.acl.CanPublish(id, []byte(f)) {
				publishes = append(publishes, f)
			}
			if c.acl.CanReceive(id, []byte(f)) {
				receives = append(receives, f)
			}
		}
		for what, q := range map[string][2]string{
			"publish": {strings.Join(publishes, " "), c.publishes}, "receive": {strings.Join(receives, " "), c.receives},
			"subscribe": {strings.Join(takes, " "), c.takes},
		} {
			if q[0] != q[1] {
				t.Errorf("%s: may %s %q, want %q", name, what, q[0], q[1])
			}
		}
	}
}

func TestACL_ExplanationsNameTheRule(t *testing.T) {
	a := mustACL(t, `# a comment
topic read news/#
user alice
topic readwrite site/#
topic deny site/secret

pattern readwrite home/%u/#
pattern deny home/+/locked
topic read site/1
`)
	claims, err := NewClaims([]string{"extra"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		client, user, verb, topic string
		want                      Explanation
	}{
		{"c", "alice", "publish", "site/1", Explanation{true, "acl:4: topic readwrite site/#", nil}},
		{"c", "alice", "publish", "site/secret", Explanation{false, "acl:5: topic deny site/secret", nil}},
		{"c", "alice", "subscribe", "site/#", Explanation{true, "acl:4: topic readwrite site/#", []string{"acl:5: topic deny site/secret"}}},
		{"c", "alice", "subscribe", "#", Explanation{false, "", []string{
			"acl:4: topic readwrite site/#", "acl:7: pattern readwrite home/%u/#", "acl:9: topic read site/1"}}},
		{"c", "alice", "publish", "home/alice/x", Explanation{true, "acl:7: pattern readwrite home/%u/#", nil}},
		{"c", "alice", "publish", "home/bob/x", Explanation{}},
		{"c", "alice", "subscribe", "home/alice/locked", Explanation{false, "acl:8: pattern deny home/+/locked", nil}},
		{"c", "", "subscribe", "news/a", Explanation{true, "acl:2: topic read news/#", nil}},
		{"c", "", "publish", "news/a", Explanation{}},
		{"c", "#", "publish", "home/#", Explanation{}},
		{"c", "alice", "publish", "extra", Explanation{true, "claim: extra", nil}},
	} {
		id := &broker.Identity{ClientID: c.client, Username: c.user, Data: claims}
		got := a.ExplainSubscribe(id, c.topic)
		if c.verb == "publish" {
			got = a.ExplainPublish(id, c.topic)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %s %s: %+v", c.user, c.verb, c.topic, got)
		}
	}
	if e := Open().ExplainPublish(&broker.Identity{}, "x"); !e.Allowed || e.Rule != "" {
		t.Errorf("without rules: %+v", e)
	}
}
