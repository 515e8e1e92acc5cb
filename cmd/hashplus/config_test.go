package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hashplus/broker"
	"hashplus/transport"
)

var update = flag.Bool("update", false, "write the golden files and docs/configuration.md") //nolint:gochecknoglobals // flags are

// check runs serve --check.
func check(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return command(t, append([]string{"serve", "--check"}, args...)...)
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what is generated now; run go test ./cmd/hashplus -update and look at the difference.\ngot:\n%s", path, got)
	}
}

func TestCheck_PrintsTheEffectiveConfiguration(t *testing.T) {
	code, stdout, stderr := check(t)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	golden(t, "testdata/default.yaml", stdout)

	file := writeFile(t, "hashplus.yaml", `
listeners:
  - url: ws://0.0.0.0:8083/mqtt
    origins: [https://example.com, "https://b.example:8443"]
    require_subprotocol: true
    ping: 40s
    pong_grace: false
    deflate: true
    deflate-min-size: 1KiB
  - url: unix:///run/hashplus.sock
allow-anonymous: true
max_packet_size: 64KiB
max-session-expiry: never
ws-origins:
  - http://localhost:3000
queue-full: drop-oldest
`)
	code, stdout, stderr = check(t, "--config", file, "--tcp", "[::1]:1883", "--max-keepalive", "60", "--no-retain-available")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	golden(t, "testdata/effective.yaml", stdout)
}

func TestCheck_OutputIsAFileThatGivesTheSame(t *testing.T) {
	for _, path := range []string{"testdata/default.yaml", "testdata/effective.yaml"} {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code, got, stderr := check(t, "--config", path)
		if code != 0 || got != string(want) {
			t.Errorf("%s: exit %d %s\n%s", path, code, stderr, got)
		}
	}
}

func TestConfiguration_FlagComesBeforeEnvironmentBeforeFileBeforeDefault(t *testing.T) {
	value := func(args ...string) string {
		_, stdout, stderr := check(t, args...)
		_, rest, ok := strings.Cut(stdout, "\nmax-inflight: ")
		if !ok {
			t.Fatalf("no max-inflight in %q %s", stdout, stderr)
		}
		v, _, _ := strings.Cut(rest, "\n")
		return v
	}
	file := writeFile(t, "c.yaml", "max-inflight: 5\n")
	if v := value(); v != "1024" {
		t.Errorf("default: %s", v)
	}
	if v := value("--config", file); v != "5" {
		t.Errorf("file: %s", v)
	}
	t.Setenv("HASHPLUS_CONFIG", file)
	if v := value(); v != "5" {
		t.Errorf("file that the environment names: %s", v)
	}
	t.Setenv("HASHPLUS_MAX_INFLIGHT", "6")
	if v := value(); v != "6" {
		t.Errorf("environment: %s", v)
	}
	if v := value("--max-inflight=7"); v != "7" {
		t.Errorf("flag: %s", v)
	}
}

func TestConfiguration_ListsComeFromAllSources(t *testing.T) {
	t.Setenv("HASHPLUS_WS", "127.0.0.1:1,127.0.0.1:2")
	_, stdout, stderr := check(t, "--tcp", "127.0.0.1:3", "--tcp", "127.0.0.1:4,127.0.0.1:5",
		"--config", writeFile(t, "c.yaml", "unix: [/a, /b]\nlisteners: [{url: 'mqtt://localhost:6'}]\n"))
	var got []string
	for line := range strings.Lines(stdout) {
		if u, ok := strings.CutPrefix(strings.TrimSpace(line), "- url: "); ok {
			got = append(got, u)
		}
	}
	want := []string{
		"tcp://localhost:6", "ws://127.0.0.1:1", "ws://127.0.0.1:2",
		"tcp://127.0.0.1:3", "tcp://127.0.0.1:4", "tcp://127.0.0.1:5", "unix:///a", "unix:///b",
	}
	if !slices.Equal(got, want) {
		t.Errorf("listeners %q, want %q; %s", got, want, stderr)
	}
}

func TestConfiguration_NamingAnyListenerSwitchesTheDefaultsOff(t *testing.T) {
	for _, args := range [][]string{
		{"--ws", "127.0.0.1:9"}, {"--tcp", "127.0.0.1:9"}, {"--unix", "/x"},
		{"--config", writeFile(t, "c.yaml", "listeners: [{url: 'ws://127.0.0.1:9'}]")},
	} {
		_, stdout, stderr := check(t, args...)
		if n := strings.Count(stdout, "- url: "); n != 1 {
			t.Errorf("%q: %d listeners; %s", args, n, stderr)
		}
	}
}

func TestConfiguration_RefusalsNameTheKey(t *testing.T) {
	exists := writeFile(t, "passwords", "")
	for name, c := range map[string]struct {
		args []string
		want []string // all of them stand in the message
	}{
		"qos":            {[]string{"--max-qos=3"}, []string{"max-qos: 3", "from 0 to 2"}},
		"two at once":    {[]string{"--max-qos=3", "--max-inflight=0", "--loops=-1"}, []string{"max-qos: 3", "max-inflight: 0", "loops: -1"}},
		"size":           {[]string{"--max-packet-size=100"}, []string{"max-packet-size: 100", "128"}},
		"size form":      {[]string{"--max-packet-size=1XB"}, []string{"--max-packet-size", `"1XB"`, "64KiB"}},
		"number form":    {[]string{"--max-qos=x"}, []string{"--max-qos", `"x"`}},
		"duration":       {[]string{"--connect-timeout=0"}, []string{"connect-timeout: 0s"}},
		"duration form":  {[]string{"--drain=soon"}, []string{"--drain", `"soon"`, "10s"}},
		"keep alive":     {[]string{"--max-keepalive=65536"}, []string{"max-keepalive: 65536", "65535"}},
		"memory":         {[]string{"--max-memory=1MiB"}, []string{"max-memory: 1MiB", "32MiB"}},
		"ban by":         {[]string{"--ban-by=ip"}, []string{`ban-by: "ip"`, "client-id"}},
		"ban time":       {[]string{"--ban-time=0"}, []string{"ban-time: 0s", "1s"}},
		"lag":            {[]string{"--max-loop-lag=1us"}, []string{"max-loop-lag: 1µs", "1ms"}},
		"retained":       {[]string{"--max-retained-messages=0", "--max-retained-bytes=1"}, []string{"max-retained-messages: 0", "max-retained-bytes: 1", "1KiB"}},
		"negative":       {[]string{"--max-publish-rate=-1", "--max-address-rate=-1", "--max-address-connections=-2"}, []string{"max-publish-rate: -1", "max-address-rate: -1", "max-address-connections: -2"}},
		"proxies":        {[]string{"--trusted-proxies=10.0.0.1/8"}, []string{"trusted-proxies: ", `"10.0.0.1/8"`, "10.0.0.0/8"}},
		"no proxies":     {[]string{"--proxy-protocol=required"}, []string{"proxy-protocol: ", "trusted-proxies"}},
		"proxy header":   {[]string{"--forwarded-header=X-Real-IP"}, []string{"--forwarded-header", "X-Forwarded-For"}},
		"policy":         {[]string{"--queue-full=drop"}, []string{"--queue-full", `"drop"`, "drop-oldest"}},
		"level":          {[]string{"--log-level=loud"}, []string{"--log-level", `"loud"`, `"debug"`}},
		"unknown flag":   {[]string{"--max-qoss=1"}, []string{"--max-qoss", "--max-qos"}},
		"no port":        {[]string{"--ws=127.0.0.1"}, []string{`ws: "127.0.0.1"`, "host:port"}},
		"port":           {[]string{"--tcp=127.0.0.1:mqtt"}, []string{"tcp: ", "number from 0 to 65535"}},
		"twice":          {[]string{"--tcp=127.0.0.1:9", "--ws=127.0.0.1:9", "--tcp=127.0.0.1:9"}, []string{"tcp: 127.0.0.1:9 is listened on twice, by ws too"}},
		"twice alike":    {[]string{"--tcp=127.0.0.1:9", "--tcp=127.0.0.1:9"}, []string{"tcp: 127.0.0.1:9 is listened on twice\n"}},
		"health twice":   {[]string{"--tcp=127.0.0.1:9", "--health=127.0.0.1:9"}, []string{"health: 127.0.0.1:9 is listened on twice, by tcp too"}},
		"all and one":    {[]string{"--tcp=127.0.0.1:9", "--ws=0.0.0.0:9", "--allow-anonymous"}, []string{"tcp: 127.0.0.1:9 is listened on twice, as 0.0.0.0:9 by ws too"}},
		"all and health": {[]string{"--tcp=:9", "--health=[::1]:9", "--allow-anonymous"}, []string{"health: [::1]:9 is listened on twice, as :9 by tcp too"}},
		"localhost":      {[]string{"--tcp=127.0.0.1:9", "--ws=localhost:09"}, []string{"tcp: 127.0.0.1:9 is listened on twice, as localhost:09 by ws too"}},
		"unix twice":     {[]string{"--unix=s", "--unix=./s"}, []string{"unix: ./s is listened on twice, as s by unix too"}},
		"health port":    {[]string{"--health=0.0.0.0:99999"}, []string{"health: ", "number from 0 to 65535"}},
		"a negative":     {[]string{"--drain", "-3s", "--ws-ping", "-1s", "--max-subscriptions", "-1"}, []string{"drain: -3s", "ws-ping: -1s", "max-subscriptions: -1", "from 1 to"}},
		"number":         {[]string{"--max-address-rate=x"}, []string{"--max-address-rate", `"x" is not a whole number from 0 to 1073741824`}},
		"large number":   {[]string{"--max-address-rate=99999999999999999999"}, []string{"--max-address-rate", `is not a whole number from 0 to 1073741824`}},
		"below 0":        {[]string{"--max-qos", "-1"}, []string{"--max-qos: -1 is not allowed; from 0 to 2 is"}},
		"above 65535":    {[]string{"--receive-maximum=70000"}, []string{"--receive-maximum: 70000 is not allowed; from 1 to 65535 is"}},
		"size below 0":   {[]string{"--max-packet-size", "-1"}, []string{`--max-packet-size: "-1" is not a size`, "from 128 to 268435460 is allowed"}},
		"skew":           {[]string{"--jwt-clock-skew=9999h", "--jwt-secret=" + exists}, []string{"jwt-clock-skew: 9999h", "from 0s to 10m"}},
		"path":           {[]string{"--ws-path=mqtt"}, []string{`ws-path: "mqtt"`, "begin with /"}},
		"origin":         {[]string{"--ws-origins=example.com"}, []string{`ws-origins: "example.com"`, "https://example.com"}},
		"all addresses":  {[]string{"--ws=:8083"}, []string{"ws: ws://:8083", "authentication", "allow-anonymous"}},
		"any v4":         {[]string{"--tcp=0.0.0.0:1883"}, []string{"tcp: ", "allow-anonymous"}},
		"a name":         {[]string{"--tcp=broker.example:1883"}, []string{"tcp: ", "allow-anonymous"}},
		"nobody":         {[]string{"--no-allow-anonymous"}, []string{"allow-anonymous: ", "nobody could connect"}},
		"missing file":   {[]string{"--password-file=/does/not/exist"}, []string{"password-file: ", "/does/not/exist"}},
		"directory":      {[]string{"--password-file=" + exists, "--acl=" + filepath.Dir(exists)}, []string{"acl: ", "directory"}},
		"missing config": {[]string{"--config=/does/not/exist"}, []string{"config: ", "/does/not/exist"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := check(t, c.args...)
			if code != exitUsage || stdout != "" {
				t.Errorf("exit %d, stdout %q", code, stdout)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not say %q", stderr, want)
				}
			}
		})
	}
}

func TestConfiguration_AddressesThatNeedNoAuthentication(t *testing.T) {
	for _, args := range [][]string{
		{"--ws=127.0.0.1:1"}, {"--ws=127.9.9.9:1"}, {"--ws=[::1]:1"}, {"--tcp=localhost:1"}, {"--unix=/x"},
		{"--ws=:1", "--allow-anonymous"},
		{"--ws=:1", "--password-file=" + writeFile(t, "passwords", "")},
	} {
		if _, err := parsed(t, args...); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

func TestConfiguration_AnonymousClientsAreOutOnceAuthenticationIsConfigured(t *testing.T) {
	file := "--password-file=" + writeFile(t, "passwords", "")
	for _, c := range []struct {
		args []string
		want bool
	}{
		{nil, true},
		{[]string{file}, false},
		{[]string{file, "--allow-anonymous"}, true},
	} {
		if got, err := parsed(t, c.args...); err != nil || *got.AllowAnonymous != c.want {
			t.Errorf("%q: %v %v, want %v", c.args, *got.AllowAnonymous, err, c.want)
		}
	}
}

func TestConfigFile_MistakesAreToldWithTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"max-qos: 1\nmax-qoss: 1":        ":2: unknown key max-qoss; did you mean max-qos?",
		"check: true":                    ":1: unknown key check",
		"frobnicate: 1":                  ":1: unknown key frobnicate; known are acl, ",
		"\nmax-qos: x":                   `:2: max-qos: "x" is not a whole number from 0 to 2`,
		"max-qos: [1, 2]":                ":1: max-qos: takes one value, not a list",
		"max-qos: {a: 1}":                ":1: max-qos: takes a value, not a mapping",
		"ws: [{a: b}]":                   ":1: ws: takes a list of plain values",
		"queue-full: drop":               `:1: queue-full: "drop" is not one of drop-newest`,
		"log-level: loud":                `:1: log-level: "loud" is not one of debug, info, warn, error`,
		"strict: perhaps":                ":1: strict: ",
		"max-qos: 1\nmax_qos: 2":         ":2: max-qos stands there twice",
		"- max-qos":                      ":1: the file is not a mapping",
		"acl: x\n---\nmax-qos: 1":        ":2: a second document begins",
		"a: b: c":                        "mapping values are not allowed",
		"listeners: ws://127.0.0.1:1":    ":1: listeners: is a list",
		"listeners:\n- ws://127.0.0.1:1": ":2: listeners: each is a mapping with a url",
		"listeners:\n- path: /x":         ":2: listeners: url is missing",
		"listeners:\n- url: ws://127.0.0.1:1\n  pth: /x":      ":3: unknown key pth; did you mean path?",
		"listeners:\n- url: ws://127.0.0.1:1\n  ping: x":      `:3: listeners: ping: "x" is not a duration`,
		"listeners:\n- url: ws://127.0.0.1:1\n  deflate: 7":   ":3: listeners: deflate: cannot unmarshal",
		"listeners:\n- url: http://127.0.0.1:1":               `:2: listeners: url "http://127.0.0.1:1" does not begin with ws://`,
		"listeners:\n- url: ws://127.0.0.1":                   `:2: listeners: "127.0.0.1" is not host:port`,
		"listeners:\n- url: tcp://127.0.0.1:1\n  path: /x":    ":2: listeners: path, origins, require-subprotocol",
		"listeners:\n- url: tcp://127.0.0.1:1/x":              ":2: listeners: url tcp://127.0.0.1:1/x: tcp:// has no path",
		"listeners:\n- url: ws://127.0.0.1:1/x\n  path: /y":   ":2: listeners: url ws://127.0.0.1:1/x and path /y contradict",
		"listeners:\n- url: ws://u@127.0.0.1:1":               ":2: listeners: url: a listener has no user",
		"listeners:\n- url: ws://127.0.0.1:1\n  origins: [a]": `:2: listeners: origins: "a" is not an origin`,
		"listeners:\n- url: ws://127.0.0.1:1\n  ping: -1s":    ":2: listeners: ping: -1s is not allowed",
		"listeners:\n- url: ws://127.0.0.1:1\n  path: x":      `:2: listeners: path: "x" does not begin with /`,
		"listeners:\n- url: ws://10.0.0.1:1":                  ":2: listeners: ws://10.0.0.1:1 can be reached from other machines",
		"listeners:\n- url: 'unix://'":                        ":2: listeners: the path of the socket is empty",
	} {
		code, _, stderr := check(t, "--config", writeFile(t, "bad.yaml", text))
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %q does not say %q", text, code, stderr, want)
		}
	}
}

func TestConfigFile_MayBeEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		if code, _, stderr := check(t, "--config", writeFile(t, "c.yaml", text)); code != 0 {
			t.Errorf("%q: %s", text, stderr)
		}
	}
}

func TestEnvironment_MistakesNameTheVariable(t *testing.T) {
	t.Setenv("HASHPLUS_LOOPS", "many")
	for _, args := range [][]string{nil, {"--config", writeFile(t, "c.yaml", "loops: 1")}} {
		if code, _, stderr := check(t, args...); code != exitUsage || !strings.Contains(stderr, "HASHPLUS_LOOPS") {
			t.Errorf("exit %d: %s", code, stderr)
		}
	}
	if code, _, stderr := command(t, "version"); code != 0 {
		t.Errorf("it fails another command: %s", stderr)
	}
}

// parsed is the configuration that args give, and what finish says to it.
func parsed(t *testing.T, args ...string) (*configuration, error) {
	t.Helper()
	var c commands
	env := &environment{ctx: context.Background(), stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	if _, err := newParser(&c, env).Parse(append([]string{"serve"}, args...)); err != nil {
		t.Fatal(err)
	}
	err := c.Serve.finish()
	return &c.Serve.configuration, err
}

func TestConfiguration_DefaultsAreTheLibrarys(t *testing.T) {
	c, err := parsed(t)
	if err != nil {
		t.Fatal(err)
	}
	got := c.brokerOptions()
	var want broker.Options
	want.EnsureDefaults()
	if *got.MaximumQoS != *want.MaximumQoS {
		t.Errorf("MaximumQoS %d, want %d", *got.MaximumQoS, *want.MaximumQoS)
	}
	// What is no default of the library, or cannot be compared.
	got.MaximumQoS, want.MaximumQoS = nil, nil
	got.Logger, want.Logger = nil, nil
	got.Version, want.Version = "", ""
	got.MinFree, want.MinFree = 0, 0 // without a store it counts for nothing
	if !reflect.DeepEqual(got, want) {
		t.Errorf("broker options\n%+v, want\n%+v", got, want)
	}
	var tw transport.Options
	tw.EnsureDefaults()
	if time.Duration(c.WriteStall) != tw.WriteStall || time.Duration(c.ConnectTimeout) != tw.HandshakeTimeout {
		t.Errorf("write stall %v and handshake %v, want %v and %v", c.WriteStall, c.ConnectTimeout, tw.WriteStall, tw.HandshakeTimeout)
	}
	if uses[c.IOUring] != tw.IOUring {
		t.Errorf("io-uring %s, want %v", c.IOUring, tw.IOUring)
	}
	lw := transport.Listener{}
	lw.EnsureDefaults()
	l := c.Listeners[0].listener(c)
	if l.Ping != lw.Ping || l.DeflateMinSize != lw.DeflateMinSize || l.MaxMessage != lw.MaxMessage {
		t.Errorf("listener %+v, want %+v", l, lw)
	}
}

func TestConfiguration_EveryValueReachesTheBroker(t *testing.T) {
	c, err := parsed(t, "--receive-maximum=2", "--max-packet-size=3KiB", "--topic-alias-maximum=0", "--max-qos=1",
		"--no-retain-available", "--max-keepalive=7", "--max-session-expiry=8", "--connect-timeout=9s",
		"--max-connect-size=1KiB", "--max-inflight=10", "--max-queued-messages=11", "--max-queued-bytes=12KiB",
		"--queue-full=disconnect", "--max-subscriptions=13", "--max-topic-levels=14", "--max-topic-length=15",
		"--max-user-properties=16", "--max-sessions=17", "--max-publish-rate=20", "--max-publish-bytes=21KiB",
		"--max-retained-messages=22", "--max-retained-bytes=23KiB", "--ban-auth-failures=24", "--ban-connects=25",
		"--ban-window=26s", "--ban-time=27s", "--ban-by=username,address", "--jwt-secret="+writeFile(t, "secret", strings.Repeat("s", 32)), "--write-queue-bytes=18KiB", "--sys-interval=0",
		"--server-reference=other:1883", "--strict", "--ws=127.0.0.1:1", "--ws-path=/p", "--ws-origins=http://a,http://b",
		"--ws-require-subprotocol", "--ws-deflate", "--ws-deflate-min-size=19", "--ws-ping=0", "--no-pong-grace")
	if err != nil {
		t.Fatal(err)
	}
	got := c.brokerOptions()
	if *got.MaximumQoS != 1 {
		t.Errorf("MaximumQoS %d", *got.MaximumQoS)
	}
	got.MaximumQoS, got.Version = nil, ""
	want := broker.Options{
		ReceiveMaximum: 2, MaximumPacketSize: 3 << 10, TopicAliasMaximum: -1, RetainUnavailable: true,
		MaxKeepAlive: 7, MaxSessionExpiry: 8, ConnectTimeout: 9 * time.Second, MaxConnectSize: 1 << 10,
		MaxInflight: 10, MaxQueuedMessages: 11, MaxQueuedBytes: 12 << 10, QueueFull: broker.Disconnect,
		MaxSubscriptions: 13, MaxTopicLevels: 14, MaxTopicLength: 15, MaxUserProperties: 16, MaxSessions: 17,
		WriteQueueBytes: 18 << 10, SysInterval: -1, ServerReference: "other:1883", Strict: true, MinFree: 256 << 20,
		Limits: broker.Limits{
			PublishRate: 20, PublishBytes: 21 << 10, MaxRetainedMessages: 22, MaxRetainedBytes: 23 << 10,
			Bans: broker.Bans{AuthFailures: 24, Connects: 25, Window: 26 * time.Second, Time: 27 * time.Second, Username: true, Address: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("broker options\n%+v, want\n%+v", got, want)
	}
	l := c.Listeners[0].listener(c)
	if l.Network != "ws" || l.Addr != "127.0.0.1:1" || l.Path != "/p" || !slices.Equal(l.Origins, []string{"http://a", "http://b"}) ||
		!l.RequireSubprotocol || !l.Deflate || l.DeflateMinSize != 19 || l.Ping != -1 || l.PongGrace || l.MaxMessage != 3<<10 {
		t.Errorf("listener %+v", l)
	}
	if err := l.Validate(); err != nil {
		t.Error(err)
	}
}

func TestConfiguration_LimitsReachTheTransport(t *testing.T) {
	c, err := parsed(t)
	if err != nil {
		t.Fatal(err)
	}
	var want transport.Limits
	want.EnsureDefaults()
	if got := c.transportLimits(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if c, err = parsed(t, "--max-address-connections=1", "--max-address-rate=2", "--max-loop-lag=3ms"); err != nil {
		t.Fatal(err)
	}
	if got := c.transportLimits(); got != (transport.Limits{AddressConns: 1, AddressRate: 2, LoopLag: 3 * time.Millisecond}) {
		t.Errorf("%+v", got)
	}
	if c, err = parsed(t, "--max-loop-lag=0"); err != nil || c.transportLimits().LoopLag >= 0 {
		t.Errorf("a lag of 0 does not switch it off: %v", err)
	}
}

func TestConfiguration_ProxiesReachTheListener(t *testing.T) {
	file := writeFile(t, "c.yaml", `
trusted-proxies: [10.0.0.0/8, unix]
forwarded-header: Forwarded
listeners:
  - url: ws://127.0.0.1:1
  - url: tcp://127.0.0.1:2
    trusted-proxies: [192.0.2.1]
    proxy-protocol: optional
`)
	c, err := parsed(t, "--config="+file)
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Listeners[0].listener(c), c.Listeners[1].listener(c)
	if fmt.Sprint(a.Trusted) != "{[10.0.0.0/8] true}" || a.ProxyProtocol != transport.ProxyOff || a.ForwardedHeader != "Forwarded" {
		t.Errorf("%+v", a)
	}
	if fmt.Sprint(b.Trusted) != "{[192.0.2.1/32] false}" || b.ProxyProtocol != transport.ProxyOptional || b.ForwardedHeader != "" {
		t.Errorf("%+v", b)
	}
}
