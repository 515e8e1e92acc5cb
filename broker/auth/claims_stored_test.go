package auth

import (
	"reflect"
	"strings"
	"testing"
)

func TestClaims_ComeBackFromTheStore(t *testing.T) {
	long := make([]string, maxClaimFilters)
	for i := range long {
		long[i] = strings.Repeat("a", maxClaimBytes/maxClaimFilters)
	}
	for _, lists := range [][2][]string{
		{nil, nil}, {{}, nil}, {nil, {}}, {{"a/#", "+/b"}, {"c"}}, {long, long},
	} {
		c, err := NewClaims(lists[0], lists[1])
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.MarshalBinary()
		if err != nil || len(b) > 48<<10 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		back, err := ReadClaims(b)
		if err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("%.60v came back as %.60v, %v", lists, back, err)
		}
		for n := range min(len(b), 100) {
			if got, err := ReadClaims(b[:n:n]); err == nil {
				t.Errorf("the first %d of %d bytes were read as %v", n, len(b), got)
			}
		}
		if got, err := ReadClaims(append(b, 0)); err == nil || got != nil {
			t.Errorf("a byte too many was not noticed")
		}
	}
	for _, b := range []string{"", "\x02\x00\x00", "\x01\x02\x02a#\x00", "\x01\xff\xff\xff\xff\x0f"} {
		if got, err := ReadClaims([]byte(b)); err == nil || got != nil {
			t.Errorf("%q was read as %v", b, got)
		}
	}
}
