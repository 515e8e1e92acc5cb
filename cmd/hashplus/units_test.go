package main

import (
	"fmt"
	"math"
	"testing"
	"time"
)

func TestSize_ReadsUnitsAndPrintsTheLargestThatDivides(t *testing.T) {
	for in, want := range map[string]struct {
		n    Size
		text string
	}{
		"0": {0, "0"}, "17": {17, "17"}, "4096": {4096, "4KiB"}, "64KiB": {64 << 10, "64KiB"},
		"1MiB": {1 << 20, "1MiB"}, "2GiB": {2 << 30, "2GiB"}, "1500 B": {1500, "1500"},
		"10MB": {10e6, "10000000"}, "1 KiB": {1024, "1KiB"}, " 5KB ": {5000, "5000"},
		"1536KiB": {1536 << 10, "1536KiB"},
	} {
		var s Size
		if err := s.UnmarshalText([]byte(in)); err != nil || s != want.n || s.String() != want.text {
			t.Errorf("%q: %d %q %v, want %d %q", in, s, s, err, want.n, want.text)
		}
	}
	for _, in := range []string{"", "-1", "1.5MiB", "MiB", "1TiB", "1mib", "9223372036854775807KiB", "0x10"} {
		var s Size
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q was read as %d", in, s)
		}
	}
}

func TestDuration_ReadsUnitsAndBareSeconds(t *testing.T) {
	for in, want := range map[string]struct {
		d    time.Duration
		text string
	}{
		"10s": {10 * time.Second, "10s"}, "60": {time.Minute, "1m"}, "0": {0, "0s"},
		"1m30s": {90 * time.Second, "1m30s"}, "500ms": {500 * time.Millisecond, "500ms"},
		"24h": {24 * time.Hour, "24h"}, "-1": {-time.Second, "-1s"}, "1h0m5s": {time.Hour + 5*time.Second, "1h0m5s"},
		"20m": {20 * time.Minute, "20m"}, "10h": {10 * time.Hour, "10h"},
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(in)); err != nil || time.Duration(d) != want.d || d.String() != want.text {
			t.Errorf("%q: %v %q %v, want %v %q", in, time.Duration(d), d, err, want.d, want.text)
		}
	}
	for _, in := range []string{"", "10 s", "1d", "s", "1e3"} {
		var d Duration
		if err := d.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q was read as %v", in, d)
		}
	}
}

func TestSeconds_ReadsWhatFourBytesHold(t *testing.T) {
	for in, want := range map[string]Seconds{
		"0": 0, "10s": 10, "24h": 86400, "never": math.MaxUint32, "4294967294": math.MaxUint32 - 1, "90": 90,
	} {
		var s Seconds
		if err := s.UnmarshalText([]byte(in)); err != nil || s != want {
			t.Errorf("%q: %d %v, want %d", in, s, err, want)
		}
	}
	for _, in := range []string{"", "-1s", "500ms", "4294967296", "1193047h", "soon"} {
		var s Seconds
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q was read as %d", in, s)
		}
	}
}

// FuzzUnits: what a unit prints, it reads as the same.
func FuzzUnits(f *testing.F) {
	for _, s := range []string{"0", "64KiB", "1h0m0s", "never", "10", "-5s", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var size, size2 Size
		if size.UnmarshalText([]byte(in)) == nil {
			if err := size2.UnmarshalText([]byte(size.String())); err != nil || size != size2 {
				t.Fatalf("size %q prints %q: %v", in, size, err)
			}
		}
		var d, d2 Duration
		if d.UnmarshalText([]byte(in)) == nil {
			if err := d2.UnmarshalText([]byte(d.String())); err != nil || d != d2 {
				t.Fatalf("duration %q prints %q: %v", in, d, err)
			}
		}
		var s, s2 Seconds
		if s.UnmarshalText([]byte(in)) == nil {
			if err := s2.UnmarshalText([]byte(fmt.Sprint(s))); err != nil || s != s2 {
				t.Fatalf("seconds %q prints %q: %v", in, s, err)
			}
		}
	})
}
