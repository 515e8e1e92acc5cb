package main

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"hashplus/transport"
)

func TestConfiguration_TLSRefusalsNameTheKey(t *testing.T) {
	cert, key := certificate(t)
	other, _ := certificate(t)
	pair := []string{"--tls-cert", cert, "--tls-key", key}
	nonsense := writeFile(t, "nonsense", "x")
	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"no certificate":        {[]string{"--wss=127.0.0.1:0"}, []string{"wss: ", "tls-cert", "tls-key"}},
		"no key":                {[]string{"--tls=127.0.0.1:0", "--tls-cert", cert}, []string{"tls-key: ", "1 certificates and 0 keys"}},
		"missing file":          {[]string{"--tls=127.0.0.1:0", "--tls-cert", "/does/not/exist", "--tls-key", key}, []string{"tls-cert: ", "/does/not/exist"}},
		"missing key":           {[]string{"--tls=127.0.0.1:0", "--wss=127.0.0.1:0", "--tls-cert", cert, "--tls-key", "/does/not/exist"}, []string{"tls-key: ", "/does/not/exist"}},
		"no pair":               {[]string{"--tls=127.0.0.1:0", "--tls-cert", other, "--tls-key", key}, []string{"tls-key: " + key + " with " + other, "does not match"}},
		"no certificate in it":  {[]string{"--tls=127.0.0.1:0", "--tls-cert", nonsense, "--tls-key", key}, []string{"tls-cert: " + nonsense}},
		"no key in it":          {[]string{"--tls=127.0.0.1:0", "--tls-cert", cert, "--tls-key", nonsense}, []string{"tls-key: " + nonsense}},
		"nothing uses it":       {append([]string{"--ws=127.0.0.1:0"}, pair...), []string{"tls-cert: ", "neither wss nor tls"}},
		"no CA":                 {append([]string{"--wss=127.0.0.1:0", "--tls-client-auth=required"}, pair...), []string{"tls-client-ca: is not set", "client-auth is required"}},
		"CA that is none":       {append([]string{"--wss=127.0.0.1:0", "--tls-client-auth=required", "--tls-client-ca", nonsense}, pair...), []string{"tls-client-ca: " + nonsense, "no certificate"}},
		"CRL that is none":      {append([]string{"--wss=127.0.0.1:0", "--tls-client-auth=required", "--tls-client-ca", cert, "--tls-crl", nonsense}, pair...), []string{"tls-crl: " + nonsense, "revocation list"}},
		"old version":           {append([]string{"--wss=127.0.0.1:0", "--tls-min-version=1.1"}, pair...), []string{"--tls-min-version", `"1.2"`}},
		"auth":                  {append([]string{"--wss=127.0.0.1:0", "--tls-client-auth=maybe"}, pair...), []string{"--tls-client-auth", `"optional"`}},
		"no handshakes":         {[]string{"--tls-handshakes=0"}, []string{"tls-handshakes: 0"}},
		"timeout":               {[]string{"--tls-handshake-timeout=0"}, []string{"tls-handshake-timeout: 0s"}},
		"key of ws":             {[]string{"--config", writeFile(t, "a.yaml", "listeners: [{url: 'ws://127.0.0.1:0', cert: [x]}]")}, []string{"a.yaml:1", "wss://"}},
		"version of a listener": {[]string{"--config", writeFile(t, "b.yaml", "listeners: [{url: 'wss://127.0.0.1:0', min-version: 1.4}]"), "--tls-cert", cert, "--tls-key", key}, []string{"b.yaml:1", `min-version: "1.4"`}},
	} {
		if code, _, stderr := check(t, c.args...); code != exitUsage {
			t.Errorf("%s: exit %d: %s", name, code, stderr)
		} else {
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%s: %q is not in %s", name, want, stderr)
				}
			}
		}
	}
}

func TestConfiguration_TLSReachesTheTransport(t *testing.T) {
	cert, key := certificate(t)
	cert2, key2 := certificate(t)
	file := writeFile(t, "c.yaml", "listeners:\n  - url: tls://127.0.0.1:2\n    cert: ["+cert2+"]\n    key: ["+key2+"]\n    client-auth: none\n")
	c, err := parsed(t, "--wss=127.0.0.1:1", "--tls-cert", cert+","+cert2, "--tls-key", key+","+key2, "--tls-min-version=1.3",
		"--tls-client-auth=optional", "--tls-client-ca", cert, "--tls-username=email", "--tls-handshake-timeout=1s",
		"--tls-handshake-rate=2", "--tls-workers=3", "--tls-handshakes=4", "--tls-watch=0", "--ws-path=/p")
	if err != nil {
		t.Fatal(err)
	}
	var o transport.Options
	c.tlsConfig.options(&o)
	if want := (transport.Options{TLSHandshakeTimeout: time.Second, TLSHandshakeRate: 2, TLSWorkers: 3, TLSHandshakes: 4, TLSWatch: -1}); !reflect.DeepEqual(o, want) {
		t.Errorf("options %+v", o)
	}
	l := c.Listeners[0].listener(c)
	want := &transport.TLS{
		Certificates: []transport.KeyPair{{Cert: cert, Key: key}, {Cert: cert2, Key: key2}}, MinVersion: tls.VersionTLS13,
		ClientAuth: transport.ClientAuthOptional, ClientCA: cert, Username: transport.NameEmail,
	}
	if l.Network != "wss" || l.Path != "/p" || !reflect.DeepEqual(l.TLS, want) {
		t.Errorf("%+v %+v", l, l.TLS)
	}
	_, stdout, stderr := check(t, "--config", file, "--wss=127.0.0.1:1", "--tls-cert", cert, "--tls-key", key, "--tls-client-auth=required", "--tls-client-ca", cert)
	for _, line := range []string{"url: tls://127.0.0.1:2", "cert: [" + cert2 + "]", "client-auth: none", `client-ca: ""`} {
		if !strings.Contains(stdout, line) {
			t.Errorf("%s is not in %s%s", line, stdout, stderr)
		}
	}
}

func TestConfiguration_TLSDefaultsAreTheTransports(t *testing.T) {
	c, err := parsed(t)
	if err != nil {
		t.Fatal(err)
	}
	var got, want transport.Options
	c.tlsConfig.options(&got)
	got.EnsureDefaults()
	want.EnsureDefaults()
	got.Logger, want.Logger = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestServe_SpeaksTLS(t *testing.T) {
	cert, key := certificate(t)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	s := brokerWith(t, "--wss", "127.0.0.1:0", "--tls", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	seen := map[string]bool{}
	eventually(t, "five listeners", func() bool { return strings.Count(s.out.String(), "listening ") == 5 })
	for _, url := range strings.Fields(strings.ReplaceAll(s.out.String(), "listening ", "")) {
		scheme, _, _ := strings.Cut(url, "://")
		seen[scheme] = true
		if scheme != "wss" && scheme != "mqtts" {
			continue
		}
		if code, _, stderr := command(t, "pub", "-u", url, "--cafile", cert, "-t", "a", "-m", "b", "-q", "1"); code != exitOK {
			t.Errorf("%s: exit %d: %s", url, code, stderr)
		}
	}
	if !seen["wss"] || !seen["mqtts"] {
		t.Errorf("%q", s.urls)
	}
	if log := s.errout.String(); !strings.Contains(log, filepath.Base(key)) || !strings.Contains(log, "other users") {
		t.Errorf("nothing of a key that everybody can read: %s", log)
	}
}
