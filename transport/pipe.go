package transport

import (
	"io"
	"net"
	"sync"
	"sync/atomic"

	"hashplus/transport/link"
)

const (
	minPipeRead = 4 << 10
	maxPipeRead = 64 << 10
)

// pipe makes a net.Conn behave like a socket in a poller: reads and writes that
// never block, and events. One goroutine reads; one writes while there is
// something. Each hands over at most one buffer at a time, so a loop that does
// not read stops the peer, as a full socket buffer would.
type pipe struct {
	// Immutable after newPipe.
	conn  *conn
	nc    net.Conn
	wg    *sync.WaitGroup
	gone  chan struct{} // closed with the pipe
	taken chan struct{} // tells the reader that chunk was taken
	chain []chainKey    // of the client's certificate, if nc has TLS
	// Any goroutine; atomic. Written by the loop that gives the connection away.
	loop atomic.Pointer[loop]

	// Owned by the reader until its event runs, then by the loop until it
	// sends on taken.
	chunk   []byte
	readErr error

	// Owned by the loop until it starts the writer, then by the writer until
	// its event runs.
	out      []byte
	writeErr error

	// Owned by the loop.
	filled  bool // chunk and readErr are the loop's
	writing bool // out and writeErr are the writer's
	closed  bool
}

func newPipe(c *conn, nc net.Conn, l *loop, wg *sync.WaitGroup) *pipe {
	p := &pipe{conn: c, nc: nc, wg: wg, gone: make(chan struct{}), taken: make(chan struct{}, 1)}
	p.loop.Store(l)
	return p
}

// start starts reading. Bytes in early were read already.
func (p *pipe) start(early []byte) {
	p.wg.Go(func() { p.readAll(early) })
}

func (p *pipe) readAll(early []byte) {
	if len(early) > 0 && !p.deliver(early, nil) {
		return
	}
	buf := make([]byte, minPipeRead)
	for {
		n, err := p.nc.Read(buf)
		if n == 0 && err == nil {
			continue
		}
		if !p.deliver(buf[:n], err) || err != nil {
			return
		}
		if n == len(buf) && n < maxPipeRead {
			buf = make([]byte, 2*n)
		}
	}
}

// deliver hands b and err to the loop and waits until they are taken. It
// reports whether there is a reason to read on.
func (p *pipe) deliver(b []byte, err error) bool {
	p.chunk, p.readErr = b, err
	if !p.loop.Load().Post((*pipeFilled)(p)) {
		return false
	}
	select {
	case <-p.taken:
		return true
	case <-p.gone:
		return false
	}
}

// pipeFilled is the event of a reader.
type pipeFilled pipe

func (e *pipeFilled) Run(l link.Loop) {
	p := (*pipe)(e)
	if p.forward(l, e) || p.closed {
		return
	}
	p.filled = true
	what := canRead
	if p.readErr != nil {
		what |= peerGone
	}
	p.conn.event(what)
}

// pipeWritten is the event of a writer.
type pipeWritten pipe

func (e *pipeWritten) Run(l link.Loop) {
	p := (*pipe)(e)
	if p.forward(l, e) || p.closed {
		return
	}
	p.writing = false
	what := canWrite
	if p.writeErr != nil {
		what |= peerGone
	}
	p.conn.event(what)
}

// forward sends an event after a connection that has moved on.
func (p *pipe) forward(l link.Loop, event link.Task) bool {
	at := p.loop.Load()
	if at == l.(*loop) {
		return false
	}
	l.Send(at.id, event)
	return true
}

func (p *pipe) unread() bool { return p.filled && len(p.chunk) > 0 }

func (p *pipe) read(b []byte) (int, error) {
	if !p.filled {
		return 0, errAgain
	}
	if len(p.chunk) > 0 {
		n := copy(b, p.chunk)
		p.chunk = p.chunk[n:]
		if len(p.chunk) == 0 && p.readErr == nil {
			p.filled = false
			p.taken <- struct{}{}
		}
		return n, nil
	}
	if p.readErr == io.EOF {
		return 0, io.EOF
	}
	return 0, p.readErr
}

func (p *pipe) write(q *writeQueue) (int, error) {
	if p.writing {
		return 0, errAgain
	}
	if p.writeErr != nil {
		return 0, p.writeErr
	}
	p.out = p.out[:0]
	var bufs [maxVector][]byte
	for _, b := range q.vector(bufs[:0]) {
		p.out = append(p.out, b[:min(len(b), maxChunk-len(p.out))]...)
	}
	n := len(p.out)
	p.writing = true
	p.wg.Go(p.writeOut)
	return n, nil
}

func (p *pipe) writeOut() {
	_, p.writeErr = p.nc.Write(p.out)
	// With nobody to tell, the loop has stopped and closed the pipe.
	_ = p.loop.Load().Post((*pipeWritten)(p))
}

// closeWrite ends the outgoing direction, after everything was written, and
// reports whether the connection can do that. It may have to write for it, so
// the loop does not wait.
func (p *pipe) closeWrite() bool {
	half, ok := p.nc.(interface{ CloseWrite() error })
	if ok {
		p.wg.Go(func() {
			_ = half.CloseWrite() // the connection is closed soon either way
		})
	}
	return ok
}

// close may have to write as well.
func (p *pipe) close() {
	p.closed = true
	close(p.gone)
	p.wg.Go(func() {
		_ = p.nc.Close() // nobody is left who could act on it
	})
}
