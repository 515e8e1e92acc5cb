package vulnerabilities

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"hashplus/bench/codec"
	"hashplus/cmd/hashplus/launch"
)

// withoutSys subscribes to a filter and expects nothing of $SYS, while another
// client that asks for it gets it.
func withoutSys(t *testing.T, filters ...string) {
	t.Helper()
	t.Parallel()
	b := open(t, "--sys-interval=100ms")
	for _, v3 := range []bool{false, true} {
		var all []*client
		for _, filter := range filters {
			c := b.join(who{v3: v3})
			c.subscribe(filter, 0)
			all = append(all, c)
		}
		control := b.join(who{v3: v3})
		control.subscribe("$SYS/#", 0)
		for range 60 { // several rounds of all of them
			if m := control.message(); !strings.HasPrefix(m.topic, "$SYS/") {
				t.Fatalf("a message of %q", m.topic)
			}
		}
		for _, c := range all {
			c.silent(10 * time.Millisecond)
		}
		control.publish("a/b", "x", 1, 0) // which they all get
		for i, c := range all {
			if m := c.message(); m.topic != "a/b" {
				t.Errorf("%q got %q", filters[i], m.topic)
			}
			c.drop()
		}
	}
}

// mochi, comqtt: a share group on # got $SYS.
func TestMochi_ShareGetsSys(t *testing.T) {
	withoutSys(t, "$share/g/#", "$share/h/+/#", "$share/i/+/+")
}

func TestAedes135_HashGetsSys(t *testing.T) { withoutSys(t, "#") }

func TestVerneMQ14_PlusGetsSys(t *testing.T) { withoutSys(t, "+/#", "+/+") }

// HiveMQ CE: the same for what is retained there.
func TestHiveMQ751_RetainedSysForWildcards(t *testing.T) {
	t.Parallel()
	b := open(t, "--sys-interval=100ms")
	control := b.join(who{})
	control.subscribe("$SYS/broker/version", 0)
	control.message()
	for _, filter := range []string{"#", "+/broker/version", "+/#", "$share/g/+/broker/version"} {
		c := b.join(who{})
		c.subscribe(filter, 0)
		c.silent(moment)
	}
	// Nobody writes there, as a client, a will or by an alias.
	c := b.join(who{})
	c.send(c.publication("$SYS/broker/version", "mine", 1, 1, 1))
	p, err := c.read(patience)
	if refused := err == nil && (p.Type == codec.DISCONNECT || p.Type == codec.PUBACK && len(p.Body) > 2 && p.Body[2] >= 0x80); !refused {
		t.Errorf("a message to $SYS: % x, %v", p.Body, err)
	}
}

// comqtt (admin/admin), NanoMQ and EMQX (admin/public): there is no login that
// comes with the program.
func TestDefaults_NoLoginComesWithTheProgram(t *testing.T) {
	t.Parallel()
	b := serve(t, "--password-file="+passwords(t, "alice"))
	for _, user := range []string{"admin", "root", "guest", "hashplus", "mqtt", "user", ""} {
		for _, password := range []string{"admin", "public", "guest", "password", "hashplus", "root", "\x00"} {
			c := b.dial()
			if got := c.knock(who{id: "a", user: user, password: password}); got == 0 {
				t.Errorf("%q with %q is let in", user, password)
			}
			c.drop()
		}
	}
	// A password file without users lets nobody in.
	if s, err := launch.Start(program, "--tcp=127.0.0.1:0", "--password-file="+file(t, "")); err == nil {
		d := &broker{s, t, s.Address("mqtt"), ""}
		if got := d.dial().knock(who{user: "admin"}); got == 0 {
			t.Error("a user of an empty file is let in")
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// The same brokers listen with a dashboard or an API that nobody asked for.
// Here nothing listens but what is named, and by default on loopback only.
func TestDefaults_NothingListensThatIsNotNamed(t *testing.T) {
	t.Parallel()
	b := serve(t)
	want := map[string]bool{b.tcp: true, b.ws: true}
	for _, address := range listening(t, b.PID) {
		if !want[address] {
			t.Errorf("the broker listens on %s, which nobody named", address)
		}
		delete(want, address)
	}
	if len(want) > 0 {
		t.Errorf("not found, so that the test shows nothing: %v", want)
	}
}

// listening are the TCP addresses, 127.0.0.1:port or *:port, that a process
// listens on.
func listening(t *testing.T, pid int) (addresses []string) {
	t.Helper()
	sockets := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Skip("there is no /proc here")
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && strings.HasPrefix(to, "socket:[") {
			sockets[strings.TrimSuffix(to[len("socket:["):], "]")] = true
		}
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open("/proc/net/" + table)
		if err != nil {
			continue // a system without it
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			fields := strings.Fields(in.Text())
			if len(fields) < 10 || !sockets[fields[9]] || strings.HasPrefix(table, "tcp") && fields[3] != "0A" {
				continue
			}
			host, port, _ := strings.Cut(fields[1], ":")
			var n int
			if _, err := fmt.Sscanf(port, "%X", &n); err != nil {
				t.Fatal(err)
			}
			if host == "0100007F" {
				host = "127.0.0.1"
			}
			addresses = append(addresses, fmt.Sprintf("%s:%d", host, n))
		}
		_ = f.Close() // it was only read
	}
	return addresses
}

// And let anybody in who can reach them.
func TestDefaults_OtherMachinesNeedALogin(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"--tcp=0.0.0.0:0", "--ws=0.0.0.0:0", "--tcp=:0", "--ws=[::]:0"} {
		cmd := launch.Command(program, "serve", "--check", address)
		out, err := cmd.CombinedOutput()
		if _, failed := err.(*exec.ExitError); !failed || !strings.Contains(string(out), "anonymous") {
			t.Errorf("serve %s without authentication: %v\n%s", address, err, out)
		}
	}
}
