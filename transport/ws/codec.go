package ws

import "github.com/klauspost/compress/flate"

const (
	minWindowBits = 8
	maxWindowBits = 15

	maxFreePartials = 64       // on the free list of a Codec
	maxKeptBuffer   = 64 << 10 // larger buffers are left to the garbage collector
)

// Codec is the memory that the connections of one loop share while one of them
// is being served: compressors, the decompressor, and the buffers of messages
// that were just completed. The zero value is ready; what it holds is made when
// it is first needed. All methods are for one goroutine at a time.
type Codec struct {
	// MinSize is the smallest packet that AppendFrame compresses, where it is more
	// than it takes anyway.
	MinSize int

	deflaters [maxWindowBits - minWindowBits + 1]*flate.Writer
	deflated  sink // what the deflaters write

	inflater inflater
	inflated []byte // valid until the next message is inflated

	message []byte // of the last collected message, lent to who handles it
	control [MaxControl]byte
	free    []*partial
}

func (c *Codec) getPartial() *partial {
	n := len(c.free)
	if n == 0 {
		return new(partial)
	}
	p := c.free[n-1]
	c.free[n-1] = nil
	c.free = c.free[:n-1]
	return p
}

func (c *Codec) putPartial(p *partial) {
	p.valid, p.ncontr = 0, 0
	p.message = p.message[:0]
	if cap(p.message) > maxKeptBuffer {
		p.message = nil
	}
	if len(c.free) < maxFreePartials {
		c.free = append(c.free, p)
	}
}

// keep takes over the message that r has collected and returns it. It is valid
// until the next call.
func (c *Codec) keep(r *Reader) []byte {
	p := r.part
	r.part = nil
	// The buffers change places, so that both are used again.
	old := c.message
	if cap(old) > maxKeptBuffer {
		old = nil
	}
	c.message, p.message = p.message, old
	c.putPartial(p)
	return c.message
}
