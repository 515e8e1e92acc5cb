package topic

import (
	"errors"
	"strings"
	"testing"
)

func shares(t *testing.T, rows ...verdict) {
	t.Helper()
	for _, r := range rows {
		group, filter, shared, err := ParseShare(r.s)
		var e Error
		if !shared || !errors.As(err, &e) || e.Clause != r.clause || group != "" || filter != "" {
			t.Errorf("ParseShare(%.30q) = %q, %q, %v, %v; want an error of %s", r.s, group, filter, shared, err, r.clause)
		}
	}
}

func TestParseShare_SplitsGroupAndFilter(t *testing.T) {
	for s, want := range map[string][2]string{
		"$share/g/a":          {"g", "a"},
		"$share/g/#":          {"g", "#"},
		"$share/g/+/x/#":      {"g", "+/x/#"},
		"$share/consumer//":   {"consumer", "/"},
		"$share/c//finance":   {"c", "/finance"},
		"$share/ /a":          {" ", "a"},
		"$share/$share/$SYS":  {"$share", "$SYS"},
		"$share/g/$SYS/x/+/#": {"g", "$SYS/x/+/#"},
	} {
		group, filter, shared, err := ParseShare(s)
		if group != want[0] || filter != want[1] || !shared || err != nil {
			t.Errorf("ParseShare(%q) = %q, %q, %v, %v", s, group, filter, shared, err)
		}
	}
}

func TestParseShare_LeavesOtherFiltersAlone(t *testing.T) {
	for _, s := range []string{"", "a/b", "$share", "$shared/g/a", "$SHARE/g/a", "/$share/g/a", "$SYS/#", "a#"} {
		group, filter, shared, err := ParseShare(s)
		if group != "" || filter != "" || shared || err != nil {
			t.Errorf("ParseShare(%q) = %q, %q, %v, %v", s, group, filter, shared, err)
		}
	}
}

func TestParseShare_WantsAShareName(t *testing.T) { // [MQTT-4.8.2-1]
	shares(t, verdict{"$share/", "MQTT-4.8.2-1"}, verdict{"$share//", "MQTT-4.8.2-1"}, verdict{"$share//x", "MQTT-4.8.2-1"})
}

func TestParseShare_NameHasNoWildcardAndAFilterFollows(t *testing.T) { // [MQTT-4.8.2-2]
	shares(t,
		verdict{"$share/+/a", "MQTT-4.8.2-2"}, verdict{"$share/#/a", "MQTT-4.8.2-2"},
		verdict{"$share/g+/a", "MQTT-4.8.2-2"}, verdict{"$share/g#h/a", "MQTT-4.8.2-2"}, verdict{"$share/#", "MQTT-4.8.2-2"},
		verdict{"$share/g", "MQTT-4.8.2-2"}, verdict{"$share/g/", "MQTT-4.8.2-2"})
}

func TestParseShare_HoldsTheFilterAgainstTheFilterRules(t *testing.T) {
	shares(t,
		verdict{"$share/g/a#", "MQTT-4.7.1-1"}, verdict{"$share/g/#/a", "MQTT-4.7.1-1"},
		verdict{"$share/g/a+/b", "MQTT-4.7.1-2"},
		verdict{"$share/g/a\x00", "MQTT-4.7.3-2"}, verdict{"$share/g\x00/a", "MQTT-4.7.3-2"},
		verdict{"$share/g/" + strings.Repeat("a", MaxLength), "MQTT-4.7.3-3"},
		verdict{"$share/g/" + strings.Repeat("a", MaxLength-8), "MQTT-4.7.3-3"}) // the whole is one string of the packet
}

func FuzzParseShare(f *testing.F) {
	for _, s := range []string{"", "a", "$share", "$share/", "$share//a", "$share/g", "$share/g/", "$share/g/+/#", "$share/+/a", "$share/g/a#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		group, filter, shared, err := ParseShare(s)
		if shared != strings.HasPrefix(s, "$share/") {
			t.Fatalf("ParseShare(%q): shared %v", s, shared)
		}
		if !shared || err != nil {
			if group != "" || filter != "" || !shared && err != nil {
				t.Fatalf("ParseShare(%q) = %q, %q, %v, %v", s, group, filter, shared, err)
			}
		}
		if shared {
			valid := false
			if parts := strings.SplitN(s, "/", 3); len(parts) == 3 {
				valid = validBy(parts[1], false) && validBy(parts[2], true) && len(s) <= MaxLength
			}
			if valid != (err == nil) || valid && "$share/"+group+"/"+filter != s {
				t.Fatalf("ParseShare(%q) = %q, %q, %v", s, group, filter, err)
			}
		}
	})
}
