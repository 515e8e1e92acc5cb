package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes: 4096, 64KiB, 1MiB, 10MB. It prints in the largest
// binary unit that divides it.
type Size int64

var sizeUnits = []struct {
	name string
	n    int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1},
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	number, factor := text, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, factor = strings.TrimSpace(rest), u.n
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return fmt.Errorf("%q is not a size, such as 4096, 64KiB or 1MiB", text)
	}
	*s = Size(n * factor)
	return nil
}

// MarshalText writes a size as UnmarshalText reads it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	for _, u := range sizeUnits[:3] {
		if s != 0 && int64(s)%u.n == 0 {
			return strconv.FormatInt(int64(s)/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Duration is a length of time: 10s, 1m30s, 500ms, 24h, or a bare number of
// seconds.
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		*d = Duration(time.Duration(n) * time.Second)
		return nil
	}
	v, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration, such as 10s, 1m30s or 500ms", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes a duration as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string {
	s := time.Duration(d).String()
	// 1h0m0s says no more than 1h.
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Seconds is a span that MQTT carries as a four-byte number of seconds: a
// duration of whole seconds, or never.
type Seconds uint32

// UnmarshalText reads a duration or never.
func (s *Seconds) UnmarshalText(b []byte) error {
	if strings.TrimSpace(string(b)) == "never" {
		*s = math.MaxUint32
		return nil
	}
	var d Duration
	if err := d.UnmarshalText(b); err != nil {
		n, numErr := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
		if numErr != nil {
			return fmt.Errorf("%q is not a duration, such as 10s or 24h, nor never", b)
		}
		*s = Seconds(n)
		return nil
	}
	sec := time.Duration(d) / time.Second
	if d < 0 || time.Duration(d)%time.Second != 0 || int64(sec) > math.MaxUint32 {
		return fmt.Errorf("%q is not a whole number of seconds from 0 to %d", b, uint32(math.MaxUint32))
	}
	*s = Seconds(sec)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (s Seconds) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Seconds) String() string {
	if s == math.MaxUint32 {
		return "never"
	}
	return Duration(time.Duration(s) * time.Second).String()
}

// joinNegative makes one argument of a flag and a negative value that follows it,
// which kong would take for a flag.
func joinNegative(args []string) (joined []string) {
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			return append(joined, args[i:]...)
		}
		if i+1 < len(args) && strings.HasPrefix(a, "--") && !strings.Contains(a, "=") && isNegative(args[i+1]) {
			i++
			a += "=" + args[i]
		}
		joined = append(joined, a)
	}
	return joined
}

func isNegative(s string) bool { return len(s) > 1 && s[0] == '-' && s[1] >= '0' && s[1] <= '9' }
