package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// The tables know every number and every size of serve, and what is next to what
// they allow is refused with just that.
func TestConfiguration_EveryNumberHasARangeThatIsTold(t *testing.T) {
	var flags []*kong.Flag
	for _, node := range newParser(&commands{}, &environment{ctx: t.Context()}).Model.Children {
		if node.Name == "serve" {
			flags = node.Flags
		}
	}
	looked := 0
	for _, f := range flags {
		kind := f.Target.Kind()
		isSize := f.Target.Type() == reflect.TypeFor[Size]()
		isNumber := f.Target.Type().PkgPath() == "" && (kind == reflect.Int || kind == reflect.Uint16 || kind == reflect.Uint8)
		if !isSize && !isNumber {
			continue
		}
		allowed, known := numberSpans[f.Name]
		if isSize {
			allowed, known = sizeSpans[f.Name]
		}
		if !known {
			t.Errorf("nothing says what is allowed of %s", f.Name)
			continue
		}
		looked++
		said := fmt.Sprintf("from %d to %d", allowed.lo, allowed.hi)
		if isSize {
			said = fmt.Sprintf("from %s to %s", Size(allowed.lo), Size(allowed.hi))
		}
		for _, value := range []string{fmt.Sprint(allowed.lo - 1), fmt.Sprint(allowed.hi + 1), "x"} {
			code, _, stderr := check(t, "--data="+t.TempDir(), "--"+f.Name+"="+value)
			if code != exitUsage || !strings.Contains(stderr, f.Name+": ") || !strings.Contains(stderr, said) {
				t.Errorf("--%s=%s: exit %d: %s", f.Name, value, code, stderr)
			}
		}
	}
	if want := len(numberSpans) + len(sizeSpans) - 1; looked != want { // max-keepalive is a time
		t.Errorf("%d of %d", looked, want)
	}
}

// A negative value is read with = and without, on the command line, and from the
// other sources.
func TestConfiguration_NegativeValuesAreNoFlags(t *testing.T) {
	for key, want := range map[string]string{
		"drain": "-3s", "ws-ping": "-1s", "max-subscriptions": "-1", "tls-watch": "-2s", "loops": "-1", "max-qos": "-1", "receive-maximum": "-1",
		"max-memory": "-1", "max-keepalive": "-1", "jwt-clock-skew": "-1s",
	} {
		for form, args := range map[string][]string{
			"two": {"--" + key, want}, "one": {"--" + key + "=" + want}, "file": {"--config", writeFile(t, "c.yaml", key+": "+want)},
		} {
			code, _, stderr := check(t, args...)
			if code != exitUsage || !strings.Contains(stderr, key+": ") || !strings.Contains(stderr, want) ||
				!strings.Contains(stderr, "from ") && !strings.Contains(stderr, " or more is") {
				t.Errorf("%s of %s: exit %d: %s", form, key, code, stderr)
			}
		}
	}
	if _, _, stderr := check(t, "--max-keepalive=x"); !strings.Contains(stderr, `--max-keepalive: "x" is not a whole number of seconds from 0 to 65535`) {
		t.Errorf("a time that is none: %s", stderr)
	}
	t.Setenv("HASHPLUS_DRAIN", "-3s")
	if _, _, stderr := check(t); !strings.Contains(stderr, "drain: -3s is not allowed; 0s or more is") {
		t.Errorf("environment: %s", stderr)
	}
}
