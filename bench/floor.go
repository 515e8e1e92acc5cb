package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// Floor is the command `floor`.
type Floor struct {
	Sockets  int           `help:"Loopback connections that are written to in turn." default:"1000"`
	Frame    int           `help:"Bytes of one message with its headers." default:"90"`
	Duration time.Duration `help:"How long to measure each way." default:"2s"`
	JSON     string        `help:"Write the result as JSON to this file; - is standard output." name:"json" placeholder:"FILE"`
}

// The bare write that results are given in multiples of: the defaults above. The
// frame is that of a message of 64 bytes with its headers.
const (
	usualSockets = 1000
	usualFrame   = 90
)

// Help is the command's page.
func (*Floor) Help() string {
	return `A broker must hand each message to the kernel. This measures the CPU time of the bare write that does it, over loopback connections
whose readers wait in epoll, for one message per write and for 8 in one: no broker that writes the same way can be cheaper. Results are worth
comparing across machines as multiples of it.`
}

// FloorResult is the CPU time of a delivery that is nothing but a write, in µs.
type FloorResult struct {
	Single float64 `json:"single_us"` // one message per write
	Eight  float64 `json:"eight_us"`  // per message, 8 in one write
}

// Run measures and prints.
func (c *Floor) Run(ctx context.Context) error {
	f, err := c.measure(ctx)
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	if c.JSON != "" {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if c.JSON == "-" {
			_, err = fmt.Printf("%s\n", b)
			return err
		}
		if err := os.WriteFile(c.JSON, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	fmt.Printf("floor        %.2f µs of CPU per message, one write each; %.2f µs, 8 in one write\n", f.Single, f.Eight)
	return nil
}

func (c *Floor) measure(ctx context.Context) (FloorResult, error) {
	var f FloorResult
	var err error
	if f.Single, err = floor(ctx, c.Sockets, c.Frame, 1, c.Duration); err != nil {
		return f, err
	}
	f.Eight, err = floor(ctx, c.Sockets, c.Frame, 8, c.Duration)
	return f, err
}
