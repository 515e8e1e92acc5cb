package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"hashplus/bench/drive"
)

// partVariable tells a process that a run started which part of it to carry:
// part, parts and the run's id. Everything else it learns from its arguments,
// which are those of the process that started it.
const partVariable = "HASHPLUS_BENCH_PART"

// sharedFile is the descriptor under which it finds the shared memory.
const sharedFile = 3

// errServed is how a process that carried a part leaves its scenario.
var errServed = errors.New("part carried")

// part is what such a process is.
type part struct {
	index, parts int
	run          string
}

// part returns nil in a process that nobody started for a part.
func (o *Options) part() *part {
	var p part
	if n, err := fmt.Sscanf(os.Getenv(partVariable), "%d/%d/%s", &p.index, &p.parts, &p.run); err != nil || n != 3 {
		return nil
	}
	return &p
}

// descriptors is how many clients one process can hold.
func descriptors() int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 1000
	}
	return max(int(min(lim.Cur, 1<<20))-100, 100)
}

// order is a line from the starting process, answer one back. The order stop has
// no answer: it ends what is being done.
type order struct {
	Do       string          `json:"do"`
	From     int             `json:"from,omitempty"`
	To       int             `json:"to,omitempty"`
	Schedule *drive.Schedule `json:"schedule,omitempty"`
}

type answer struct {
	Error   string         `json:"error,omitempty"`
	Outcome *drive.Outcome `json:"outcome,omitempty"`
}

// startProcesses starts parts processes of this program with this process's
// arguments.
func (o *Options) startProcesses(ctx context.Context, s *scenario, parts int) (*fleet, error) {
	size := drive.SharedSize(&s.plan, parts)
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "bench")
	defer file.Close()
	if err := file.Truncate(int64(size)); err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	f := &fleet{clock: drive.NewClock(), shared: drive.NewShared(&s.plan, parts, mem), pids: []int{os.Getpid()}}
	// It can only fail for an address that is not mapped.
	f.release = func() { _ = unix.Munmap(mem) }
	for i := range parts {
		w, err := startProcess(o.argv, file, fmt.Sprintf("%s=%d/%d/%s", partVariable, i, parts, s.id))
		if err != nil {
			f.close()
			return nil, err
		}
		w.unhook = context.AfterFunc(ctx, w.stop)
		f.workers = append(f.workers, w)
		f.pids = append(f.pids, w.cmd.Process.Pid)
	}
	return f, nil
}

// process is a worker in another process.
type process struct {
	cmd    *exec.Cmd
	end    func() error // closes its standard input
	out    *json.Decoder
	unhook func() bool // undoes that the end of the run's context stops it

	mu sync.Mutex // one order at a time goes to in
	in *json.Encoder
}

func startProcess(argv []string, shared *os.File, env string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if argv == nil {
		argv = os.Args[1:]
	}
	c := exec.Command(exe, argv...)
	// A terminal's Ctrl-C is for the process that was started there, which stops
	// the others: they have results to hand over.
	ownGroup(c)
	c.Env = append(os.Environ(), env)
	c.ExtraFiles = []*os.File{shared}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return &process{cmd: c, in: json.NewEncoder(in), end: in.Close, out: json.NewDecoder(out)}, nil
}

func (p *process) send(q order) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.in.Encode(q)
}

// stop ends what the process is doing. One that is gone says so when it is asked.
func (p *process) stop() { _ = p.send(order{Do: "stop"}) }

func (p *process) ask(q order) (*drive.Outcome, error) {
	if err := p.send(q); err != nil {
		return nil, fmt.Errorf("process %d: %w", p.cmd.Process.Pid, err)
	}
	var a answer
	if err := p.out.Decode(&a); err != nil {
		return nil, fmt.Errorf("process %d: %w", p.cmd.Process.Pid, err)
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return a.Outcome, nil
}

func (p *process) connect(_ context.Context, from, to int) error {
	_, err := p.ask(order{Do: "connect", From: from, To: to})
	return err
}

func (p *process) drive(_ context.Context, s drive.Schedule) error {
	_, err := p.ask(order{Do: "drive", Schedule: &s})
	return err
}

func (p *process) finish() (*drive.Outcome, error) { return p.ask(order{Do: "finish"}) }

func (p *process) close() {
	p.unhook()
	// It ends when its orders end; how it ended says nothing more.
	_ = p.end()
	_ = p.cmd.Wait()
}

// serve carries the part until the orders end, then returns errServed.
func (p *part) serve(ctx context.Context, plan *drive.Plan) error {
	mem, err := unix.Mmap(sharedFile, 0, drive.SharedSize(plan, p.parts), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("shared memory: %w", err)
	}
	spread(plan, p.parts)
	w, err := newLocal(plan, drive.NewClock(), drive.NewShared(plan, p.parts, mem), p.index)
	if err != nil {
		return err
	}
	defer w.close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out := json.NewEncoder(os.Stdout)
	for q := range orders(stop) {
		var a answer
		var err error
		switch q.Do {
		case "connect":
			err = w.connect(ctx, q.From, q.To)
		case "drive":
			err = w.drive(ctx, *q.Schedule)
		case "finish":
			a.Outcome, err = w.finish()
		default:
			err = fmt.Errorf("unknown order %q", q.Do)
		}
		if err != nil {
			a.Error = strings.ToValidUTF8(err.Error(), "?")
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return errServed
}

// orders are those from standard input, until it ends: then, and at the order
// stop, it calls stop. So a part does not outlive the process that started it.
func orders(stop func()) <-chan order {
	c := make(chan order, 1)
	go func() {
		defer close(c)
		defer stop()
		for in := json.NewDecoder(os.Stdin); ; {
			var q order
			if in.Decode(&q) != nil {
				return
			}
			if q.Do == "stop" {
				stop()
				continue
			}
			c <- q
		}
	}()
	return c
}
