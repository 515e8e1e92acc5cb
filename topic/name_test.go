package topic

import (
	"errors"
	"strings"
	"testing"
)

// verdict is one row of the tables here: clause is empty if s is valid.
type verdict struct{ s, clause string }

func check(t *testing.T, rows []verdict, f func(string) error, g func([]byte) error) {
	t.Helper()
	for _, r := range rows {
		for _, err := range []error{f(r.s), g([]byte(r.s))} {
			var e Error
			switch {
			case err == nil && r.clause != "":
				t.Errorf("%.20q (%d bytes) accepted, want %s", r.s, len(r.s), r.clause)
			case err != nil && r.clause == "":
				t.Errorf("%.20q (%d bytes) refused: %v", r.s, len(r.s), err)
			case err != nil && (!errors.As(err, &e) || e.Clause != r.clause):
				t.Errorf("%.20q: %v, want %s", r.s, err, r.clause)
			}
		}
	}
}

func checkNames(t *testing.T, rows ...verdict) {
	t.Helper()
	check(t, rows, CheckName[string], CheckName[[]byte])
}

func checkFilters(t *testing.T, rows ...verdict) {
	t.Helper()
	check(t, rows, CheckFilter[string], CheckFilter[[]byte])
}

func TestCheckName_AcceptsWhatTheSpecAllows(t *testing.T) {
	checkNames(t, verdict{"a", ""}, verdict{"/", ""}, verdict{"//", ""}, verdict{"/a/", ""},
		verdict{"$SYS/x", ""}, verdict{"a b/ c", ""}, verdict{"\x01", ""}, verdict{"é/漢", ""},
		verdict{"a$/*,\"!", ""}, verdict{"\xff", ""}) // UTF-8 is the codec's
}

func TestCheckName_RefusesWildcards(t *testing.T) {
	rows := []verdict{{"#", "MQTT-3.3.2-2"}, {"+", "MQTT-3.3.2-2"}, {"a/+", "MQTT-3.3.2-2"},
		{"a+b", "MQTT-3.3.2-2"}, {"a/b#", "MQTT-3.3.2-2"}, {strings.Repeat("x", MaxLength-1) + "#", "MQTT-3.3.2-2"}}
	t.Run("publish", func(t *testing.T) { checkNames(t, rows...) }) // [MQTT-3.3.2-2]
	t.Run("names", func(t *testing.T) { checkNames(t, rows...) })   // [MQTT-4.7.0-1]
	t.Run("v3", func(t *testing.T) { checkNames(t, rows...) })      // [MQTT3-4.7.1-1]
}

func TestCheck_RefusesTheEmptyString(t *testing.T) { // [MQTT-4.7.3-1]
	checkNames(t, verdict{"", "MQTT-4.7.3-1"})
	checkFilters(t, verdict{"", "MQTT-4.7.3-1"})
}

func TestCheck_RefusesNull(t *testing.T) { // [MQTT-4.7.3-2]
	for _, s := range []string{"\x00", "a\x00", "a/\x00/b"} {
		checkNames(t, verdict{s, "MQTT-4.7.3-2"})
		checkFilters(t, verdict{s, "MQTT-4.7.3-2"})
	}
	checkFilters(t, verdict{"+/\x00/#", "MQTT-4.7.3-2"})
}

func TestCheck_RefusesMoreThan65535Bytes(t *testing.T) { // [MQTT-4.7.3-3]
	longest := strings.Repeat("/", 65535)
	checkNames(t, verdict{longest, ""}, verdict{longest + "/", "MQTT-4.7.3-3"})
	checkFilters(t, verdict{longest, ""}, verdict{longest[1:] + "#", ""}, verdict{longest + "#", "MQTT-4.7.3-3"})
	// bytes count, not characters
	checkNames(t, verdict{strings.Repeat("é", 32767), ""}, verdict{strings.Repeat("é", 32768), "MQTT-4.7.3-3"})
}

func TestCheckFilter_AcceptsWhatTheSpecAllows(t *testing.T) {
	checkFilters(t, verdict{"a", ""}, verdict{"/", ""}, verdict{"//", ""}, verdict{"$SYS/#", ""},
		verdict{"a/b/c", ""}, verdict{" ", ""}, verdict{"$share/g/a", ""})
}

func TestCheckFilter_MultiLevelWildcardIsAloneInTheLastLevel(t *testing.T) {
	rows := []verdict{{"#", ""}, {"/#", ""}, {"a/#", ""}, {"+/#", ""}, {"a//#", ""},
		{"a#", "MQTT-4.7.1-1"}, {"a/b#", "MQTT-4.7.1-1"}, {"#/", "MQTT-4.7.1-1"}, {"#/a", "MQTT-4.7.1-1"},
		{"a/#/b", "MQTT-4.7.1-1"}, {"##", "MQTT-4.7.1-1"}, {"a/#b", "MQTT-4.7.1-1"}}
	t.Run("v5", func(t *testing.T) { checkFilters(t, rows...) }) // [MQTT-4.7.1-1]
	t.Run("v3", func(t *testing.T) { checkFilters(t, rows...) }) // [MQTT3-4.7.1-2]
}

func TestCheckFilter_SingleLevelWildcardFillsItsLevel(t *testing.T) {
	rows := []verdict{{"+", ""}, {"+/+", ""}, {"/+", ""}, {"+/", ""}, {"a/+/b", ""},
		{"a+", "MQTT-4.7.1-2"}, {"+a", "MQTT-4.7.1-2"}, {"a+/b", "MQTT-4.7.1-2"}, {"a/+b", "MQTT-4.7.1-2"},
		{"++", "MQTT-4.7.1-2"}, {"a/b+/c", "MQTT-4.7.1-2"}, {"+#", "MQTT-4.7.1-2"}}
	t.Run("v5", func(t *testing.T) { checkFilters(t, rows...) }) // [MQTT-4.7.1-2]
	t.Run("v3", func(t *testing.T) { checkFilters(t, rows...) }) // [MQTT3-4.7.1-3]
}

func TestLevels_CountsEmptyOnesToo(t *testing.T) {
	for s, want := range map[string]int{"a": 1, "/": 2, "a/b": 2, "/a/": 3, "+/#": 2, "": 1} {
		if got := Levels(s); got != want {
			t.Errorf("Levels(%q) = %d, want %d", s, got, want)
		}
		if got := Levels([]byte(s)); got != want {
			t.Errorf("Levels([]byte(%q)) = %d, want %d", s, got, want)
		}
	}
}

func TestCheck_AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	name, bad := []byte("site/12/device/345/temperature"), []byte("a/#/b")
	if n := testing.AllocsPerRun(100, func() {
		_, _, _, _ = CheckName(name), CheckName(bad), CheckFilter(name), CheckFilter(bad)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// validBy is the rules of section 4.7 once more, in the slowest way.
func validBy(s string, filter bool) bool {
	if s == "" || len(s) > 65535 || strings.Contains(s, "\x00") {
		return false
	}
	levels := strings.Split(s, "/")
	for i, l := range levels {
		wild := filter && (l == "+" || l == "#" && i == len(levels)-1)
		if strings.ContainsAny(l, "+#") && !wild {
			return false
		}
	}
	return true
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"", "a/b", "+", "a/#", "a\x00b", "$SYS/x", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := CheckName(s) == nil; got != validBy(s, false) || got != (CheckName([]byte(s)) == nil) {
			t.Errorf("CheckName(%q) == nil is %v", s, got)
		}
	})
}

func FuzzCheckFilter(f *testing.F) {
	for _, s := range []string{"", "a/b", "+", "a/#", "a#", "#/a", "+a/b", "a\x00b", "+/+/#", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := CheckFilter(s) == nil; got != validBy(s, true) || got != (CheckFilter([]byte(s)) == nil) {
			t.Errorf("CheckFilter(%q) == nil is %v", s, got)
		}
	})
}
