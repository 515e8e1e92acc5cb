package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// brokerWith is a serve with a WebSocket, a TCP and a Unix listener.
func brokerWith(t *testing.T, args ...string) *server {
	t.Helper()
	return serve(t, append([]string{"--ws=127.0.0.1:0", "--tcp=127.0.0.1:0", "--unix=" + filepath.Join(t.TempDir(), "s")}, args...)...)
}

func TestPubSub_EveryVersionQoSAndTransport(t *testing.T) {
	s := brokerWith(t)
	for _, url := range s.urls {
		for _, version := range []string{"3.1", "3.1.1", "5"} {
			for qos := range 3 {
				scheme, _, _ := strings.Cut(url, ":")
				t.Run(fmt.Sprintf("%s/%s/%d", scheme, version, qos), func(t *testing.T) {
					topic := fmt.Sprintf("t/%s/%s/%d", scheme, version, qos)
					q := fmt.Sprint(qos)
					code, _, stderr := command(t, "pub", "-u", url, "-V", version, "-q", q, "-t", topic, "-m", "größe", "-r")
					if code != 0 {
						t.Fatal(stderr)
					}
					code, stdout, stderr := command(t, "sub", "-u", url, "-V", version, "-q", q, "-t", topic, "-C", "1", "-W", "60s", "-F", "%t %p %q %r")
					if want := topic + " größe " + q + " 1\n"; code != 0 || stdout != want {
						t.Fatalf("exit %d %s: %q, want %q", code, stderr, stdout, want)
					}
				})
			}
		}
	}
}

func TestPub_PropertiesArrive(t *testing.T) {
	s := brokerWith(t)
	code, _, stderr := command(t, "pub", "-u", s.urls[0], "-t", "p", "-m", "{}", "-r", "-q", "1",
		"--content-type=application/json", "--payload-format=text", "--message-expiry=1h", "--response-topic=back",
		"--correlation-data=\x01\xff", "--user-property=a=1", "--user-property=a=2,b=3")
	if code != 0 {
		t.Fatal(stderr)
	}
	_, stdout, stderr := command(t, "sub", "-u", s.urls[1], "-t", "p", "-C", "1", "-q", "1", "-W", "60s", "--json")
	var got map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v: %q %s", err, stdout, stderr)
	}
	expiry, _ := got["message_expiry"].(float64)
	if expiry < 3590 || expiry > 3600 {
		t.Errorf("message_expiry is %v", got["message_expiry"])
	}
	delete(got, "message_expiry")
	delete(got, "time")
	want := `{"content_type":"application/json","correlation_data_base64":"Af8=","payload":"{}","payload_format":1,` +
		`"qos":1,"response_topic":"back","retain":true,"topic":"p","user_properties":[["a","1"],["a","2,b=3"]]}`
	if b, _ := json.Marshal(got); string(b) != want {
		t.Errorf("got\n%s, want\n%s", b, want)
	}
}

func TestPub_PayloadSources(t *testing.T) {
	s := brokerWith(t)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("from\x00file"), 0o600); err != nil {
		t.Fatal(err)
	}
	sub := start(t, nil, "sub", "-u", s.urls[0], "-t", "src", "-F", "%x", "-q", "2")
	probe(t, s.urls[0], "src", func() bool { return sub.lineCount() > 0 })
	got := func() (lines []string) { // without the probes, of which some may be late
		for line := range strings.Lines(sub.out.String()) {
			if line != fmt.Sprintf("%x\n", "probe") {
				lines = append(lines, strings.TrimSuffix(line, "\n"))
			}
		}
		return lines
	}
	for _, c := range []struct {
		stdin string
		args  []string
	}{
		{"", []string{"-f", file}},
		{"from stdin\n", []string{"-f", "-"}},
		{"", []string{"-n"}},
		{"", []string{"-m", ""}},
		{"one\ntwo\r\n\nlast", []string{"-l"}},
		{"", []string{"-m", "x", "-c", "2"}},
	} {
		p := start(t, strings.NewReader(c.stdin), append([]string{"pub", "-u", s.urls[1], "-t", "src", "-q", "2"}, c.args...)...)
		if code := p.wait(); code != 0 {
			t.Fatalf("%q: %s", c.args, p.errout.String())
		}
	}
	want := []string{"66726f6d0066696c65", "66726f6d20737464696e0a", "", "", "6f6e65", "74776f", "", "6c617374", "78", "78"}
	eventually(t, "all messages", func() bool { return len(got()) >= len(want) })
	if !slices.Equal(got(), want) {
		t.Errorf("got %q, want %q", got(), want)
	}
}

func TestPub_JSONTellsThatNobodySubscribes(t *testing.T) {
	s := brokerWith(t)
	_, stdout, stderr := command(t, "pub", "-u", s.urls[0], "-t", "lonely", "-m", "x", "-q", "1", "--json")
	if !strings.Contains(stdout, `"reason_code":16,"no_matching_subscribers":true}`) {
		t.Errorf("%q %s", stdout, stderr)
	}
}

func TestSub_RefusesWhatComesAfterTheCountSoThatTheSessionKeepsIt(t *testing.T) {
	s := brokerWith(t)
	for _, version := range []string{"3.1.1", "5"} {
		t.Run(version, func(t *testing.T) {
			url, topic := s.urls[1], "keep/"+version
			args := []string{"sub", "-u", url, "-V", version, "-i", "keeper" + version, "--no-clean-start", "-t", topic, "-q", "1", "-W", "60s"}
			if version == "5" {
				args = append(args, "--session-expiry=1h")
			}
			// The session comes into being with a first run that gets one message.
			first := start(t, nil, append(args, "-C", "1")...)
			probe(t, url, topic, func() bool {
				select {
				case <-first.exited:
					return true
				default:
					return false
				}
			})
			command(t, append(args, "-C", "1000", "-W", "300ms")...) // takes the probes that are left
			p := start(t, strings.NewReader("1\n2\n3\n4\n5\n"), "pub", "-u", url, "-t", topic, "-q", "1", "-l")
			if code := p.wait(); code != 0 {
				t.Fatal(p.errout.String())
			}
			var got []string
			for _, n := range []string{"2", "3"} {
				code, stdout, stderr := command(t, append(args, "-C", n)...)
				if code != 0 {
					t.Fatalf("exit %d: %s, after %q", code, stderr, got)
				}
				got = append(got, strings.Fields(stdout)...)
			}
			if strings.Join(got, "") != "12345" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestRequestRespond_EveryVersion(t *testing.T) {
	s := brokerWith(t)
	url := s.urls[0]
	exec := start(t, nil, "respond", "-u", url, "-t", "rpc/upper", "-q", "1", "--exec", "tr a-z A-Z")
	echo := start(t, nil, "respond", "-u", url, "-V", "3.1.1", "-t", "rpc/echo", "--echo", "--reply-topic-key=to")
	fixed := start(t, nil, "respond", "-u", url, "-t", "$share/g/rpc/fixed", "-m", "pong", "--content-type=text/plain")
	// A request that nobody hears is answered as such at once, so try again.
	ask := func(args ...string) (stdout string) {
		t.Helper()
		eventually(t, "a reply", func() bool {
			var code int
			var stderr string
			code, stdout, stderr = command(t, append([]string{"request", "-u", url, "-q", "1", "-W", "20s"}, args...)...)
			if code != 0 && code != exitRejected && code != exitTimeout {
				t.Fatalf("exit %d: %s", code, stderr)
			}
			return code == 0
		})
		return stdout
	}
	if got := ask("-t", "rpc/upper", "-m", "hello", "--no-newline"); got != "HELLO" {
		t.Errorf("exec replied %q", got)
	}
	got := ask("-t", "rpc/fixed", "-m", "ping", "-F", "%R|%C|%D|%p|%t", "--correlation-data=abc")
	if !strings.HasPrefix(got, "|text/plain|abc|pong|$reply/") {
		t.Errorf("message replied %q", got)
	}
	for _, version := range []string{"3.1", "3.1.1", "5"} {
		got := ask("-V", version, "-t", "rpc/echo", "-m", `{"to":"{reply}","q":1}`, "--reply-topic-in-payload", "-v")
		topic, payload, _ := strings.Cut(strings.TrimSuffix(got, "\n"), " ")
		if !strings.HasPrefix(topic, "$reply/") || payload != `{"to":"`+topic+`","q":1}` {
			t.Errorf("MQTT %s: reply %q", version, got)
		}
	}
	for _, p := range []*process{exec, echo, fixed} {
		p.signal()
		if code := p.wait(); code != 0 {
			t.Errorf("respond ended with %d: %s", code, p.errout.String())
		}
	}
}

func TestRespond_SkipsWhatItCannotAnswer(t *testing.T) {
	s := brokerWith(t)
	r := start(t, nil, "respond", "-u", s.urls[0], "-t", "q", "--exec", "test \"$(cat)\" = good && echo fine", "-c", "1")
	eventually(t, "the end", func() bool {
		command(t, "pub", "-u", s.urls[0], "-t", "q", "-m", "no response topic")
		command(t, "pub", "-u", s.urls[0], "-t", "q", "-m", "bad", "--response-topic=back")
		if strings.Count(r.errout.String(), "\n") < 2 {
			return false // not there yet, or not done with both
		}
		command(t, "request", "-u", s.urls[0], "-t", "q", "-m", "good", "-W", "300ms")
		select {
		case <-r.exited:
			return true
		default:
			return false
		}
	})
	if r.code != 0 {
		t.Errorf("exit %d", r.code)
	}
	for _, want := range []string{"it has no response topic", "--exec: exit status 1"} {
		if !strings.Contains(r.errout.String(), want) {
			t.Errorf("%q does not say %q", r.errout.String(), want)
		}
	}
}

func TestClients_WillIsSentWhenAsked(t *testing.T) {
	s := brokerWith(t)
	for _, version := range []string{"3.1.1", "5"} {
		topic := "will/" + version
		command(t, "pub", "-u", s.urls[0], "-V", version, "-t", "x", "-m", "y", "--will-topic", topic, "--will-message=kept back", "--will-retain")
		code, _, stderr := command(t, "pub", "-u", s.urls[0], "-V", version, "-t", "x", "-m", "y", "--end-by-will",
			"--will-topic", topic, "--will-message=gone", "--will-retain", "--will-qos=1")
		if code != 0 {
			t.Fatal(stderr)
		}
		code, stdout, _ := command(t, "sub", "-u", s.urls[0], "-t", topic, "-C", "1", "-W", "60s")
		if code != 0 || stdout != "gone\n" {
			t.Errorf("MQTT %s: exit %d, will %q", version, code, stdout)
		}
	}
}

func TestClients_MistakesInTheCall(t *testing.T) {
	for want, args := range map[string][]string{
		"missing flags: --url":              {"pub", "-t", "a", "-m", "b"},
		"has no scheme":                     {"pub", "-u", "localhost", "-t", "a", "-m", "b"},
		`scheme "http" is not one of`:       {"pub", "-u", "http://localhost", "-t", "a", "-m", "b"},
		"nothing to publish":                {"pub", "-u", "mqtt://h", "-t", "a"},
		"wildcard":                          {"pub", "-u", "mqtt://h", "-t", "a/+", "-m", "b"},
		"--qos is 3":                        {"pub", "-u", "mqtt://h", "-t", "a", "-m", "b", "-q", "3"},
		"can't be used together":            {"pub", "-u", "mqtt://h", "-t", "a", "-m", "b", "-n"},
		"exclude each other":                {"pub", "-u", "mqtt://h", "-t", "a", "-l", "-c", "2"},
		"need --mqtt-version 5":             {"pub", "-u", "mqtt://h", "-V", "4", "-t", "a", "-m", "b", "--content-type=c"},
		"MQTT 3.1.1 has no session expiry":  {"pub", "-u", "mqtt://h", "-V", "4", "-t", "a", "-m", "b", "--session-expiry=1h"},
		"no password without a username":    {"pub", "-u", "mqtt://h", "-V", "4", "-t", "a", "-m", "b", "--password=x"},
		"needs a client id":                 {"sub", "-u", "mqtt://h", "-V", "4", "-t", "a", "--no-clean-start"},
		"is not one of 3.1, 3.1.1, 5":       {"sub", "-u", "mqtt://h", "-V", "6", "-t", "a"},
		"the --will flags need":             {"sub", "-u", "mqtt://h", "-t", "a", "--will-message=x"},
		"--will-qos is 3":                   {"sub", "-u", "mqtt://h", "-t", "a", "--will-topic=x", "--will-qos=3"},
		"need mqtts:// or wss://":           {"sub", "-u", "mqtt://h", "-t", "a", "--insecure"},
		"--cafile: ":                        {"sub", "-u", "mqtts://h", "-t", "a", "--cafile=/does/not/exist"},
		"--cert and --key go together":      {"sub", "-u", "mqtts://h", "-t", "a", "--cert=/does/not/exist"},
		"give one of them":                  {"sub", "-u", "mqtt://h", "-t", "a", "--password=x", "--password-file=/y"},
		"--password-file: ":                 {"sub", "-u", "mqtt://h", "-t", "a", "--password-file=/does/not/exist"},
		"is not NAME: VALUE":                {"sub", "-u", "ws://h", "-t", "a", "--header=x"},
		"is not NAME=VALUE":                 {"pub", "-u", "ws://h", "-t", "a", "-m", "b", "--user-property=x"},
		"# is not alone":                    {"sub", "-u", "mqtt://h", "-t", "a#"},
		"without a share name":              {"sub", "-u", "mqtt://h", "-t", "$share//a"},
		"%z is not known":                   {"sub", "-u", "mqtt://h", "-t", "a", "-F", "%z"},
		"lone":                              {"sub", "-u", "mqtt://h", "-t", "a", "-F", "100%"},
		`\q is not one of`:                  {"sub", "-u", "mqtt://h", "-t", "a", "-F", `\q`},
		"--retain-handling is 3":            {"sub", "-u", "mqtt://h", "-t", "a", "--retain-handling=3"},
		"--no-local, --retain-as-published": {"sub", "-u", "mqtt://h", "-V", "4", "-t", "a", "--no-local"},
		"nothing to reply":                  {"respond", "-u", "mqtt://h", "-t", "a"},
		"has no Response Topic":             {"request", "-u", "mqtt://h", "-V", "4", "-t", "a", "-m", "b"},
		"no {reply} to replace":             {"request", "-u", "mqtt://h", "-V", "4", "-t", "a", "-m", "b", "--reply-topic-in-payload"},
		"is not UTF-8":                      {"pub", "-u", "mqtt://h", "-t", "a", "-m", "\xff", "--payload-format=text"},
	} {
		code, stdout, stderr := command(t, args...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q does not say %q", args, code, stdout, stderr, want)
		}
	}
}

func TestClients_ExitCodesSayWhatWentWrong(t *testing.T) {
	s := brokerWith(t, "--max-qos=1", "--max-packet-size=1KiB")
	ws, tcp := s.urls[0], s.urls[1]
	big := strings.Repeat("x", 2000)
	for _, c := range []struct {
		name string
		code int
		want string
		args []string
	}{
		{"no server", exitUnreachable, "cannot reach", []string{"pub", "-u", "mqtt://127.0.0.1:1", "-t", "a", "-m", "b"}},
		{"no server 3.1.1", exitUnreachable, "cannot reach", []string{"pub", "-u", "mqtt://127.0.0.1:1", "-V", "4", "-t", "a", "-m", "b"}},
		{"no socket", exitUnreachable, "cannot reach unix:///", []string{"pub", "-u", "unix:///does/not/exist", "-t", "a", "-m", "b"}},
		{"no WebSocket", exitUnreachable, "cannot reach", []string{"pub", "-u", strings.Replace(tcp, "mqtt", "ws", 1), "--connect-timeout=1s", "-t", "a", "-m", "b"}},
		{"no TLS", exitUnreachable, "cannot reach", []string{"pub", "-u", strings.Replace(ws, "ws", "wss", 1), "-t", "a", "-m", "b"}},
		{"origin", exitUnreachable, "HTTP 403", []string{"pub", "-u", ws, "--header=Origin: https://evil.example", "-t", "a", "-m", "b"}},
		{"client id", exitRefused, "the server refused the connection", []string{"pub", "-u", tcp, "-i", "a\x00b", "-t", "a", "-m", "b"}},
		{"QoS above the server's", exitRejected, "does not allow", []string{"pub", "-u", tcp, "-q", "2", "-t", "a", "-m", "b"}},
		{"too large", exitLost, "packet too large", []string{"pub", "-u", tcp, "-q", "1", "-t", "a", "-m", big}},
		{"reply prefix of another", exitRejected, "not authorized", []string{"sub", "-u", tcp, "-t", "$reply/someone/#"}},
		{"count not reached", exitTimeout, "timed out after 0 of 3", []string{"sub", "-u", tcp, "-t", "nothing", "-C", "3", "-W", "2s"}},
		{"time is up", exitOK, "", []string{"sub", "-u", tcp, "-t", "nothing", "-W", "2s"}},
		{"nobody answers", exitRejected, "nobody subscribes", []string{"request", "-u", tcp, "-q", "1", "-t", "nobody", "-m", "b"}},
		{"no reply", exitTimeout, "timed out", []string{"request", "-u", tcp, "-t", "nobody", "-m", "b", "-W", "2s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := command(t, c.args...)
			if code != c.code || !strings.Contains(stderr, c.want) {
				t.Errorf("exit %d, want %d; stderr %q, want %q", code, c.code, stderr, c.want)
			}
		})
	}
}

func TestClients_SignalEndsThemCleanly(t *testing.T) {
	s := brokerWith(t)
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitOK, []string{"sub", "-t", "s"}},
		{exitInterrupted, []string{"sub", "-t", "s", "-C", "100000"}},
		{exitOK, []string{"pub", "-t", "s", "-m", "x", "-c", "0", "--interval=5ms"}},
		{exitInterrupted, []string{"pub", "-t", "s", "-m", "x", "-c", "100000", "--interval=5ms"}},
		{exitOK, []string{"respond", "-t", "s", "--echo"}},
	} {
		p := start(t, nil, append(c.args, "-u", s.urls[0], "--will-topic=died", "--will-message=x", "--will-retain", "-i", "signalled")...)
		watch := start(t, nil, "sub", "-u", s.urls[0], "-t", "#", "-q", "1")
		if c.args[0] == "pub" {
			eventually(t, "a message", func() bool { return watch.lineCount() > 0 })
		} else {
			// There is nothing to see from outside but what $SYS would tell.
			probe(t, s.urls[0], "s", func() bool { return p.lineCount() > 0 || c.args[0] == "respond" && p.errout.String() != "" })
		}
		p.signal()
		if code := p.wait(); code != c.code {
			t.Errorf("%q: exit %d, want %d: %s", c.args, code, c.code, p.errout.String())
		}
		watch.signal()
		watch.wait()
	}
	if _, stdout, _ := command(t, "sub", "-u", s.urls[0], "-t", "died", "-W", "200ms"); stdout != "" {
		t.Error("a client that a signal ended left its will")
	}
}

func TestClients_PasswordIsTakenFromFileAndEnvironmentAndNeverShown(t *testing.T) {
	const secret = "correct horse"
	t.Setenv("HASHPLUS_CLIENT_PASSWORD", secret)
	for _, args := range [][]string{
		{"pub", "-u", "mqtt://user:" + secret + "@127.0.0.1:1", "-t", "a", "-m", "b"},
		{"pub", "-u", "mqtt://127.0.0.1:1", "--username=user", "-t", "a", "-m", "b"},
		{"pub", "-u", "mqtt://user:" + secret + "%zz@127.0.0.1:1", "-t", "a", "-m", "b"},
		{"pub", "-u", "ws://user:correct%20horse@127.0.0.1:1", "-t", "a", "-m", "b"},
		{"pub", "--help"},
	} {
		_, stdout, stderr := command(t, args...)
		if strings.Contains(stdout+stderr, secret) || strings.Contains(stdout+stderr, "correct%20horse") {
			t.Errorf("%q shows the password: %s%s", args, stdout, stderr)
		}
	}
}

func TestVersion_IsOneLine(t *testing.T) {
	code, stdout, _ := command(t, "version")
	if code != 0 || !strings.HasPrefix(stdout, "hashplus ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestHelp_ExitsWithZero(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"sub", "--help"}} {
		if code, stdout, _ := command(t, args...); code != 0 || !strings.Contains(stdout, "Usage: hashplus") {
			t.Errorf("%q: exit %d, %q", args, code, stdout)
		}
	}
}
