package attacks

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"hashplus/cmd/hashplus/launch"
)

var (
	long   = flag.Bool("long", false, "take the time that latencies need, and judge them")
	update = flag.Bool("update", false, "with -long: write the table into docs/security.md")
)

// program is the path of the built hashplus.
var program string

// roleVariable tells a process that this program started what it is: a role
// and, behind a space, its orders as JSON.
const roleVariable = "HASHPLUS_ATTACKS_ROLE"

// roles are what such a process may be.
var roles = map[string]func(orders []byte) error{
	"honest":   beHonest,
	"control":  beControl,
	"attacker": beAttacker,
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		var name string
		var orders json.RawMessage
		_, err := fmt.Sscan(role, &name)
		if err == nil {
			orders = json.RawMessage(role[len(name)+1:])
			err = roles[name](orders)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, name, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	os.Exit(launch.Main(func(built string) int {
		program = built
		return m.Run()
	}))
}

// helper is a process of this program, which answers each line of JSON with
// one.
type helper struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
	end func() error // closes its standard input, which ends it
}

// start starts a helper. nice takes its claim to the processors away.
func start(role string, orders any, nice bool) (*helper, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(orders)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	if nice {
		cmd = exec.Command("nice", "-n", "19", exe)
	}
	cmd.Env = append(os.Environ(), roleVariable+"="+role+" "+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &helper{cmd, json.NewEncoder(in), json.NewDecoder(out), in.Close}, nil
}

// answer waits for the next answer.
func (h *helper) answer(answer any) error {
	if err := h.out.Decode(answer); err != nil {
		return fmt.Errorf("a helper ended: %w", err)
	}
	return nil
}

// close ends the process.
func (h *helper) close() {
	_ = h.end()              // it may have ended,
	_ = h.cmd.Process.Kill() // and has nothing to save
	_ = h.cmd.Wait()         // how it ended says nothing more
}
