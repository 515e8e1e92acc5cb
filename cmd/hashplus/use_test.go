package main

import (
	"os"
	"strings"
	"testing"
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
		"--ban-time=1h":                "ban-time: is set, but nobody is banned",
		"--min-free=1GiB":              "min-free: is set, but nothing is kept on disk",
		"--sync=interval=1s":           "sync: is set, but nothing is kept on disk",
	} {
		if code, _, stderr := check(t, flag); code != exitUsage || strings.Count(stderr, want) != 1 {
			t.Errorf("%s: exit %d, %q does not say once %q", flag, code, stderr, want)
		}
	}
	cert, key := certificate(t)
	for _, flag := range []string{"--tls-client-ca=" + cert, "--tls-crl=" + cert} {
		code, _, stderr := check(t, "--wss=127.0.0.1:1", "--tls-cert", cert, "--tls-key", key, flag)
		if code != exitUsage || !strings.Contains(stderr, "no listener asks clients for certificates") {
			t.Errorf("%s: exit %d: %s", flag, code, stderr)
		}
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
		if code, _, stderr := check(t, flag, "--ws=127.0.0.1:1", "--ws=127.0.0.1:2"); code != exitUsage || strings.Count(stderr, key) != 1 {
			t.Errorf("%s: exit %d: %s", flag, code, stderr)
		}
	}
	if _, _, stderr := check(t, "--wss=127.0.0.1:1", "--tls=127.0.0.1:2", "--tls-cert=nope", "--tls-key=nope"); strings.Count(stderr, "nope") != 1 {
		t.Errorf("%s", stderr)
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

func TestEnvironment_NamesThatAreNearlyOursAreRefused(t *testing.T) {
	for name, meant := range map[string]string{"HASHPLUS_PASSWORD_FIL": "HASHPLUS_PASSWORD_FILE", "HASHPLUS_LOOP": "HASHPLUS_LOOPS"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "1")
			code, _, stderr := check(t)
			if code != exitUsage || !strings.Contains(stderr, name+"; did you mean "+meant+"?") {
				t.Errorf("exit %d: %s", code, stderr)
			}
		})
	}
	// A Service of Kubernetes is not meant for us; what else there is sets nothing.
	for _, name := range []string{"HASHPLUS_PORT", "HASHPLUS_PORT_1883_TCP_ADDR", "HASHPLUS_SERVICE_HOST", "HASHPLUS_FROBNICATE"} {
		t.Setenv(name, "1")
	}
	code, _, stderr := check(t)
	if code != 0 || !strings.Contains(stderr, "names=HASHPLUS_FROBNICATE\n") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
