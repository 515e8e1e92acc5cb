package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Whoever sets something about security or durability thinks that it holds. Where
// nothing would act on it the broker does not start.
func TestConfiguration_SettingsWithoutUseAreRefused(t *testing.T) {
	for flag, want := range map[string]string{
		"--jwt-issuer=x":               "jwt-issuer: is set, but tokens are not taken",
		"--jwt-audience=x":             "jwt-audience: is set, but tokens are not taken",
		"--jwt-from=header":            "jwt-from: is set, but tokens are not taken",
		"--jwt-clock-skew=1s":          "jwt-clock-skew: is set, but tokens are not taken",
		"--no-jwt-require-exp":         "jwt-require-exp: is set, but tokens are not taken",
		"--jwt-username-claim=name":    "jwt-username-claim: is set, but tokens are not taken",
		"--jwt-jwks-refresh=1m":        "jwt-jwks-refresh: is set, but keys are not fetched",
		"--jwt-jwks-ca=nope.pem":       "jwt-jwks-ca: is set, but keys are not fetched",
		"--auth-http-ca=nope.pem":      "auth-http-ca: is set, but no server is asked",
		"--auth-http-token-file=nope":  "auth-http-token-file: is set, but no server is asked",
		"--auth-http-cache=0":          "auth-http-cache: is set, but no server is asked",
		"--tls-client-auth=required":   "tls-client-auth: is set, but no listener speaks TLS",
		"--tls-client-ca=nope.pem":     "tls-client-ca: is set, but no listener speaks TLS",
		"--tls-crl=nope.pem":           "tls-crl: is set, but no listener speaks TLS",
		"--tls-key=nope.pem":           "tls-key: is set, but no listener speaks TLS",
		"--tls-min-version=1.3":        "tls-min-version: is set, but no listener speaks TLS",
		"--forwarded-header=Forwarded": "forwarded-header: is set, but no proxy is believed",
		"--tls-username=email":         "tls-username: is set, but no listener speaks TLS",
		"--ban-time=1h":                "ban-time: is set, but nobody is banned",
		"--ban-by=username":            "ban-by: is set, but nobody is banned",
		"--ban-auth-failures=3":        "ban-auth-failures: is set, but nobody has to show who they are",
		"--min-free=1GiB":              "min-free: is set, but nothing is kept on disk",
		"--sync=interval=1s":           "sync: is set, but nothing is kept on disk",
	} {
		if code, _, stderr := check(t, flag); code != exitUsage || strings.Count(stderr, want) != 1 {
			t.Errorf("%s: exit %d, %q does not say once %q", flag, code, stderr, want)
		}
	}
	for _, c := range []struct{ flag, with, want string }{
		{"--ban-connects=3", "--ban-by=username", "ban-connects: is set, but nobody is banned for that"},
		{"--ban-connects=3", "--ban-by=", "ban-connects: is set, but nobody is banned for that"},
		{"--ban-auth-failures=3", "--ban-by=client-id", "ban-auth-failures: is set, but nobody is banned for that"},
		{"--auth-http-ca=nope", "--auth-http-url=http://127.0.0.1/", "auth-http-ca: is set, but no server is held to it"},
		{"--jwt-jwks-ca=nope", "--jwt-jwks-url=http://127.0.0.1/", "jwt-jwks-ca: is set, but no server is held to it"},
	} {
		if code, _, stderr := check(t, c.flag, c.with); code != exitUsage || strings.Count(stderr, c.want) != 1 {
			t.Errorf("%s %s: exit %d, %q does not say once %q", c.flag, c.with, code, stderr, c.want)
		}
	}
	cert, key := certificate(t)
	for _, flag := range []string{"--tls-client-ca=" + cert, "--tls-crl=" + cert, "--tls-username=dns"} {
		code, _, stderr := check(t, "--wss=127.0.0.1:1", "--tls-cert", cert, "--tls-key", key, flag)
		if code != exitUsage || !strings.Contains(stderr, "no listener asks clients for certificates") {
			t.Errorf("%s: exit %d: %s", flag, code, stderr)
		}
	}
}

func TestConfiguration_SettingsWithoutUseAreRefusedFromAllSources(t *testing.T) {
	const want = "jwt-issuer: is set, but tokens are not taken"
	if code, _, stderr := check(t, "--config", writeFile(t, "c.yaml", "jwt-issuer: x")); code != exitUsage || !strings.Contains(stderr, want) {
		t.Errorf("file: exit %d: %s", code, stderr)
	}
	file := writeFile(t, "d.yaml", "listeners: [{url: 'wss://127.0.0.1:1', cert-username: email}]")
	cert, key := certificate(t)
	if code, _, stderr := check(t, "--config", file, "--tls-cert", cert, "--tls-key", key); code != exitUsage || !strings.Contains(stderr, "cert-username is set, but client-auth is none") {
		t.Errorf("listener: exit %d: %s", code, stderr)
	}
	t.Setenv("HASHPLUS_JWT_ISSUER", "x")
	if code, _, stderr := check(t); code != exitUsage || !strings.Contains(stderr, want) {
		t.Errorf("environment: exit %d: %s", code, stderr)
	}
}

// As a script writes them, whose variable is not set.
func TestConfiguration_EmptyFlagsAreRefused(t *testing.T) {
	for _, key := range []string{"password-file", "acl", "jwt-keys", "jwt-jwks-url", "auth-http-url", "data", "scram-file"} {
		if code, _, stderr := check(t, "--"+key, ""); code != exitUsage || strings.Count(stderr, key+": is given, and empty") != 1 {
			t.Errorf("%s: exit %d: %s", key, code, stderr)
		}
	}
	t.Setenv("HASHPLUS_PASSWORD_FILE", "")
	if code, _, stderr := check(t, "--config", writeFile(t, "c.yaml", "acl: ''\ndata: ''\n")); code != exitOK {
		t.Errorf("elsewhere: exit %d: %s", code, stderr)
	}
}

// A default that is said aloud has not been set.
func TestConfiguration_DefaultsAreNoSettings(t *testing.T) {
	code, stdout, stderr := check(t)
	if code != 0 {
		t.Fatal(stderr)
	}
	if code, _, stderr := check(t, "--config", writeFile(t, "c.yaml", stdout)); code != 0 {
		t.Errorf("the effective configuration is refused: %s", stderr)
	}
}

func TestConfiguration_EachFaultIsToldOnce(t *testing.T) {
	for flag, key := range map[string]string{
		"--ws-ping=-1s": "ping: -1s", "--ws-origins=example.com": "is not an origin", "--ws-path=foo": "does not begin",
		"--trusted-proxies=x": "is not an address", "--proxy-protocol=required": "without trusted-proxies",
	} {
		if code, _, stderr := check(t, flag, "--ws=127.0.0.1:1", "--ws=127.0.0.1:2", "--tcp=127.0.0.1:3"); code != exitUsage || strings.Count(stderr, key) != 1 {
			t.Errorf("%s: exit %d: %s", flag, code, stderr)
		}
	}
	if _, _, stderr := check(t, "--wss=127.0.0.1:1", "--tls=127.0.0.1:2", "--tls-cert=nope", "--tls-key=nope"); strings.Count(stderr, "nope") != 2 {
		t.Errorf("%s", stderr)
	}
}

func TestConfiguration_AddressesThatOnlyLookAlikeAreTaken(t *testing.T) {
	code, _, stderr := check(t, "--tcp=127.0.0.1:9", "--ws=127.0.0.2:9,127.0.0.1:8,127.0.0.1:0", "--health=[::1]:9", "--unix=9", "--unix=8", "--tcp=127.0.0.1:0,:0", "--allow-anonymous")
	if code != 0 {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestConfiguration_AllFaultsAreToldAtOnce(t *testing.T) {
	_, _, stderr := check(t, "--wss=127.0.0.1:1", "--tls-cert=a", "--tls-key=b", "--tls-client-auth=required", "--tls-client-ca=c", "--tls-crl=d", "--max-qos=3")
	for _, want := range []string{"tls-cert: open a: ", "tls-key: stat b: ", "tls-client-ca: open c: ", "tls-crl: open d: ", "max-qos: 3"} {
		if strings.Count(stderr, want) != 1 {
			t.Errorf("%q does not say once %q", stderr, want)
		}
	}
	file := writeFile(t, "c.yaml", "listeners:\n- {url: 'wss://127.0.0.1:1', trusted-proxies: x, cert: y, key: z, path: p, origins: o, ping: -1s}\n")
	_, _, stderr = check(t, "--config", file)
	for _, setting := range []string{"trusted-proxies", "cert", "key", "path", "origins", "ping"} {
		if strings.Count(stderr, "c.yaml:2: listeners: "+setting+": ") != 1 {
			t.Errorf("%q does not say once what is wrong with %s", stderr, setting)
		}
	}
}

func TestConfiguration_QueriesOfURLsAreNotShown(t *testing.T) {
	code, stdout, stderr := check(t, "--auth-http-url=http://127.0.0.1:1/a?key=hushhush", "--jwt-jwks-url=https://keys.example/k?code=hushhush", "--jwt-audience=us")
	if code != 0 || strings.Contains(stdout+stderr, "hushhush") || !strings.Contains(stdout, "http://127.0.0.1:1/a?...") {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
}

func TestConfiguration_UnwiseFilesAndNetworksAreToldByCheckToo(t *testing.T) {
	cert, key := certificate(t)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := check(t, "--wss=127.0.0.1:1", "--tls-cert", cert, "--tls-key", key, "--trusted-proxies=0.0.0.0/0")
	if code != 0 || !strings.Contains(stderr, "other users") || !strings.Contains(stderr, "everybody is taken for a trusted proxy") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestEnvironment_UnknownNamesAreRefused(t *testing.T) {
	for name, want := range map[string]string{
		"HASHPLUS_PASSWORD_FIL": "; did you mean HASHPLUS_PASSWORD_FILE?", "HASHPLUS_LOOP": "; did you mean HASHPLUS_LOOPS?",
		"HASHPLUS_ACL_FILE": "; did you mean HASHPLUS_ACL?", "HASHPLUS_TLS_CERT_FILE": "; did you mean HASHPLUS_TLS_CERT?",
		"HASHPLUS_FROBNICATE": "; hashplus serve --help names", "HASHPLUS_TCP_PORT": "; did you mean HASHPLUS_TCP?",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "hushhush")
			code, _, stderr := check(t, "--max-qos=3")
			if code != exitUsage || strings.Count(stderr, "unknown environment variable "+name+want) != 1 || strings.Contains(stderr, "hushhush") {
				t.Errorf("exit %d: %s", code, stderr)
			}
			if !strings.Contains(stderr, "max-qos: 3") {
				t.Errorf("the other fault is not told: %s", stderr)
			}
			if code, _, stderr := command(t, "version"); code != exitOK {
				t.Errorf("version: exit %d: %s", code, stderr)
			}
		})
	}
}

// What Kubernetes makes of the Services hashplus and hashplus-metrics, what clients
// have, and what our own tests have, is not meant for the broker.
func TestEnvironment_NamesThatAreNotForTheBrokerAreLeftAlone(t *testing.T) {
	for name, value := range map[string]string{
		"HASHPLUS_PORT": "tcp://10.0.0.1:1883", "HASHPLUS_PORT_1883_TCP_ADDR": "10.0.0.1", "HASHPLUS_PORT_1883_TCP": "tcp://10.0.0.1:1883",
		"HASHPLUS_SERVICE_HOST": "10.0.0.1", "HASHPLUS_SERVICE_PORT_MQTT": "1883", "HASHPLUS_METRICS_PORT": "tcp://10.0.0.2:80",
		"HASHPLUS_METRICS_SERVICE_HOST": "10.0.0.2", "HASHPLUS_METRICS_SERVICE_PORT": "80", "HASHPLUS_CLIENT_TOPIC": "a",
	} {
		t.Setenv(name, value)
	}
	if code, _, stderr := check(t); code != 0 || stderr != "" {
		t.Errorf("exit %d: %s", code, stderr)
	}
	var flags []*kong.Flag
	for _, node := range newParser(&commands{}, &environment{ctx: t.Context()}).Model.Children {
		if node.Name == "serve" {
			flags = node.Flags
		}
	}
	name := regexp.MustCompile(`HASHPLUS_[A-Z0-9_]+`)
	looked := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git", d.IsDir() && d.Name() == "bench-results":
			return filepath.SkipDir
		case d.IsDir(), d.Name() == "use_test.go": // this file makes some up
			return nil
		case filepath.Ext(path) != ".go" && d.Name() != "Makefile" && !strings.Contains(path, ".ci"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, found := range name.FindAllString(string(text), -1) {
			if strings.HasSuffix(found, "_") {
				continue // the beginning of names
			}
			looked++
			if err := unknownVariables([]string{found + "=1"}, flags); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		return err
	})
	if err != nil || looked < 20 {
		t.Errorf("%d variables, %v", looked, err)
	}
}

func TestConfiguration_AddressesComeBackFromWhatCheckPrints(t *testing.T) {
	for _, address := range []string{"--tcp=[::1%lo]:9", "--unix=/a%41?#.sock", "--unix=s%41", "--unix=./s", "--unix=a/b"} {
		_, once, stderr := check(t, address, "--allow-anonymous")
		code, twice, again := check(t, "--config", writeFile(t, "c.yaml", once))
		if code != 0 || once != twice {
			t.Errorf("%s: exit %d: %s%s", address, code, stderr, again)
		}
	}
}
