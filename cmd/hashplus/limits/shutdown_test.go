package limits

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hashplus/broker/wire"
)

func TestTerm_DrainsAndSaysWhy(t *testing.T) {
	t.Parallel()
	const drain = 30 * time.Second
	socket := filepath.Join(t.TempDir(), "mqtt.sock")
	s := boot(t, "--tcp=127.0.0.1:0", "--ws=127.0.0.1:0", "--unix="+socket, "--drain="+drain.String())
	local, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() }) // the test is over
	all := []*client{s.dial(v5), s.dialWS(v5), newClient(t, local, v5)}
	for _, c := range all {
		c.join()
		c.subscribe(1, "last")
	}
	all[0].post(1, "last", []byte("words")) // is on its way when the signal comes
	half, idle := open(t, s.tcp), open(t, s.ws)
	began := time.Now()
	s.signal(syscall.SIGTERM)
	for _, c := range all {
		got, how := c.end()
		if got != wire.ServerShuttingDown {
			t.Errorf("DISCONNECT %#02x (%v)", byte(got), how)
		}
		c.closedWith(how, 1001)
		c.drop()
	}
	_, _ = half.Close(), idle.Close()
	if err := s.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if took := time.Since(began); took > drain-10*time.Second {
		t.Errorf("it took %v with clients that all answered", took)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket file is still there: %v", err)
	}
}

func TestTerm_EndsWithinDrainWhateverClientsDo(t *testing.T) {
	t.Parallel()
	s := boot(t, "--tcp=127.0.0.1:0", "--ws=127.0.0.1:0", "--drain=1s")
	pub := s.dial(v5)
	pub.join()
	s.deaf(s.dial(v5), 0, "flood")
	s.deaf(s.dialWS(v5), 0, "flood")
	for range 2000 {
		pub.post(0, "flood", make([]byte, 4<<10))
	}
	pub.alive()
	open(t, s.tcp)
	open(t, s.ws)
	began := time.Now()
	s.signal(syscall.SIGTERM)
	if err := s.Wait(); err != nil {
		t.Errorf("exit: %v", err)
	}
	if !strings.Contains(s.Log.String(), "not everything was written in time") {
		t.Error("it was not the drain that ended them")
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a drain of 1 s took %v", took)
	}
}

func TestTerm_SecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	s := boot(t, "--ws=127.0.0.1:0", "--drain=10m")
	pub := s.dialWS(v5)
	pub.join()
	s.deaf(s.dialWS(v5), 0, "flood") // keeps the drain waiting
	for range 2000 {
		pub.post(0, "flood", make([]byte, 4<<10))
	}
	pub.alive()
	s.signal(syscall.SIGTERM)
	// Two signals that come together are one.
	until(t, "the first is heeded", func() bool { return strings.Contains(s.Log.String(), "msg=draining") })
	s.signal(syscall.SIGTERM)
	_ = s.Wait() // the exit code says more
	if code := s.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
}

func TestListen_PrintsThePortThatWasChosen(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, address := range []string{s.tcp, s.ws} {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "0" || port == "" {
			t.Errorf("%q: %v", s.URLs, err)
		}
	}
	s.dial(v5).join()
	s.dialWS(v5).join()
}

func TestListen_DefaultIsLoopbackOnly(t *testing.T) {
	t.Parallel()
	out, err := command("serve", "--check").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"127.0.0.1:8083", "127.0.0.1:1883"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the effective configuration has no %s:\n%s", want, out)
		}
	}
	for _, busy := range []string{"127.0.0.1:8083", "127.0.0.1:1883"} {
		if conn, err := net.Dial("tcp", busy); err == nil {
			_ = conn.Close()
			return // somebody else's broker: what follows would need its port
		}
	}
	s := boot(t)
	if urls, want := slices.Sorted(slices.Values(s.URLs)), []string{"mqtt://127.0.0.1:1883", "ws://127.0.0.1:8083/mqtt"}; !slices.Equal(urls, want) {
		t.Errorf("%q instead of %q", urls, want)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

func TestListen_OtherAddressesNeedAuthentication(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--ws=0.0.0.0:0"}, {"--tcp=:0"}, {"--tcp=[::]:0"}, {"--tcp=127.0.0.1:0", "--ws=192.0.2.1:0"}} {
		out, err := command(append([]string{"serve"}, args...)...).CombinedOutput()
		if err == nil {
			t.Fatalf("serve %v runs and ends well", args)
		}
		if !strings.Contains(string(out), "can be reached from other machines") || !strings.Contains(string(out), "allow-anonymous") || strings.Count(string(out), "\n") > 2 {
			t.Errorf("serve %v: %q", args, out)
		}
	}
	s := boot(t, "--tcp=0.0.0.0:0", "--allow-anonymous")
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}
