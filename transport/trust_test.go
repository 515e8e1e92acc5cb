package transport

import (
	"net/netip"
	"strings"
	"testing"
)

func networks(t testing.TB, list ...string) Networks {
	t.Helper()
	n, err := ParseNetworks(list)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNetworks_ContainWhatTheyName(t *testing.T) {
	n := networks(t, "10.1.0.0/16", "192.0.2.7", "fd00::/8", "unix")
	for a, want := range map[string]bool{
		"10.1.255.255": true, "10.2.0.0": false, "192.0.2.7": true, "192.0.2.8": false, "fd12::1": true, "fe80::1": false,
	} {
		if n.Contains(netip.MustParseAddr(a)) != want {
			t.Errorf("%s: not %t", a, want)
		}
	}
	if !n.Contains(netip.Addr{}) || (&Networks{}).Contains(netip.Addr{}) {
		t.Error("peers without an address")
	}
	for _, wrong := range []string{"", "10.1.0.0/33", "10.1.0.1/16", "::ffff:10.0.0.0/104", "fe80::1%eth0", "localhost", "10.1"} {
		if _, err := ParseNetworks([]string{wrong}); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestOrigin_IsTheLastAddressThatNoTrustedProxyHas(t *testing.T) {
	trusted := networks(t, "10.0.0.0/8", "fd00::/8", "127.0.0.1")
	for _, test := range []struct {
		peer, name string
		lines      []string
		want       string // "" for a refusal
	}{
		// An untrusted peer is not believed, whatever it writes.
		{"203.0.113.1:5", XForwardedFor, []string{"198.51.100.1"}, "203.0.113.1:5"},
		{"203.0.113.1:5", Forwarded, []string{`for="`}, "203.0.113.1:5"},
		// What stands left of the first untrusted address was written by it.
		{"10.0.0.1:5", XForwardedFor, []string{"198.51.100.1"}, "198.51.100.1:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"127.0.0.1, 10.0.0.9,198.51.100.1"}, "198.51.100.1:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"6.6.6.6, 198.51.100.1 ,10.0.0.2"}, "198.51.100.1:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"6.6.6.6", "198.51.100.1, 10.0.0.2", "10.0.0.3"}, "198.51.100.1:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"198.51.100.1, ,"}, "198.51.100.1:0"},
		{"10.0.0.1:5", XForwardedFor, nil, "10.0.0.1:5"},
		{"10.0.0.1:5", XForwardedFor, []string{""}, "10.0.0.1:5"},
		// Forms of an address.
		{"10.0.0.1:5", XForwardedFor, []string{"198.51.100.1:4711"}, "198.51.100.1:4711"},
		{"10.0.0.1:5", XForwardedFor, []string{"2001:db8::1"}, "[2001:db8::1]:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"[2001:db8::1]"}, "[2001:db8::1]:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"[2001:db8::1]:80"}, "[2001:db8::1]:80"},
		{"10.0.0.1:5", XForwardedFor, []string{"::ffff:198.51.100.1"}, "198.51.100.1:0"},
		// What is no address ends the way.
		{"10.0.0.1:5", XForwardedFor, []string{"6.6.6.6, unknown, 10.0.0.2"}, "10.0.0.2:0"},
		{"10.0.0.1:5", XForwardedFor, []string{"6.6.6.6, unknown"}, "10.0.0.1:5"},
		{"10.0.0.1:5", XForwardedFor, []string{"fe80::1%eth0"}, "10.0.0.1:5"},
		// RFC 7239.
		{"10.0.0.1:5", Forwarded, []string{"for=198.51.100.1"}, "198.51.100.1:0"},
		{"10.0.0.1:5", Forwarded, []string{`For="[2001:db8::1]:4711";proto=http;by=10.0.0.1`}, "[2001:db8::1]:4711"},
		{"10.0.0.1:5", Forwarded, []string{`for=6.6.6.6, for=198.51.100.1;by=x , host="a,b\"";for=10.0.0.2`}, "198.51.100.1:0"},
		{"10.0.0.1:5", Forwarded, []string{"for=198.51.100.1", "for=10.0.0.2"}, "198.51.100.1:0"},
		{"10.0.0.1:5", Forwarded, []string{"for=198.51.100.1, for=_hidden"}, "10.0.0.1:5"},
		{"10.0.0.1:5", Forwarded, []string{"for=198.51.100.1, proto=https"}, "10.0.0.1:5"},
		// A client's open quote must not swallow what proxies append.
		{"10.0.0.1:5", Forwarded, []string{`for="6.6.6.6, for=198.51.100.1`}, ""},
		{"10.0.0.1:5", Forwarded, []string{`for="6.6.6.6, for="198.51.100.1"`}, ""},
		{"10.0.0.1:5", Forwarded, []string{`for="x\`}, ""},
		{"10.0.0.1:5", Forwarded, []string{"for=198.51.100.1;for=6.6.6.6"}, ""},
		{"10.0.0.1:5", Forwarded, []string{"for=1 2"}, ""},
		{"10.0.0.1:5", Forwarded, []string{"198.51.100.1"}, ""},
	} {
		got, err := trusted.origin(netip.MustParseAddrPort(test.peer), test.name, map[string][]string{test.name: test.lines})
		switch {
		case test.want == "":
			if err == nil {
				t.Errorf("%s %q: accepted as %v", test.name, test.lines, got)
			}
		case err != nil || got.String() != test.want:
			t.Errorf("%s %q from %s: %v %v, want %s", test.name, test.lines, test.peer, got, err, test.want)
		}
	}
}

// Whatever comes before what the trusted proxy has appended changes nothing, or
// gets the request refused.
func FuzzOrigin(f *testing.F) {
	f.Add("10.0.0.9, 127.0.0.1")
	f.Add(`for="`)
	f.Add(`for=10.0.0.1;by="\"",`)
	trusted := networks(f, "10.0.0.0/8")
	peer := netip.MustParseAddrPort("10.0.0.1:5")
	want := netip.MustParseAddrPort("198.51.100.1:0")
	f.Fuzz(func(t *testing.T, theirs string) {
		for _, name := range []string{XForwardedFor, Forwarded} {
			hop := "198.51.100.1"
			if name == Forwarded {
				hop = "for=" + hop
			}
			got, err := trusted.origin(peer, name, map[string][]string{name: {theirs + ", " + hop}})
			if err == nil && got != want {
				t.Errorf("%s %q made it %v", name, theirs, got)
			}
		}
	})
}
