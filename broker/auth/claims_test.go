package auth

import (
	"slices"
	"strings"
	"testing"
)

func TestNewClaims_TakesFiltersOnly(t *testing.T) {
	c, err := NewClaims([]string{"a/+", "#"}, nil)
	if err != nil || !slices.Equal(c.Publish, []string{"a/+", "#"}) || c.Subscribe != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := NewClaims(nil, []string{}); err != nil || c.Publish != nil || c.Subscribe == nil {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range [][]string{
		{""}, {"a#"}, {"a/#/b"}, {"a+"}, {"a\x00"}, {"\xff"}, {"$share/g/a"}, {"ok", "$share/g"},
		make([]string, maxClaimFilters+1), {strings.Repeat("a/", 8<<10), "b"},
	} {
		if _, err := NewClaims(bad, nil); err == nil || !strings.HasPrefix(err.Error(), "publish ") {
			t.Errorf("%.60q: %v", bad, err)
		}
		if _, err := NewClaims(nil, bad); err == nil || !strings.HasPrefix(err.Error(), "subscribe ") {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
}
