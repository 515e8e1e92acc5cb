package transport

import "math/bits"

const (
	minChunk   = 256
	maxChunk   = 64 << 10
	chunkSizes = 5 // 256 B, 1 KiB, 4 KiB, 16 KiB, 64 KiB

	maxPooled = 16 << 20 // bytes that one loop keeps for later
)

// bufPool holds the buffers that the connections of one loop use while they
// have something unread or unwritten. It belongs to the loop, so it needs no
// lock, and hands out the buffer that was used last, which is still in the
// processor's cache.
type bufPool struct {
	free [chunkSizes][][]byte
	// spare is the fewest free buffers of each size since the last trim: so
	// many were not needed.
	spare [chunkSizes]int
	bytes int
}

// get returns an empty buffer with room for n bytes or more.
func (p *bufPool) get(n int) []byte {
	if n > maxChunk {
		// Rare and big: left to the garbage collector.
		return make([]byte, 0, n)
	}
	class := chunkClass(n)
	free := p.free[class]
	last := len(free) - 1
	if last < 0 {
		p.spare[class] = 0
		return make([]byte, 0, chunkSize(class))
	}
	b := free[last]
	free[last] = nil
	p.free[class] = free[:last]
	p.spare[class] = min(p.spare[class], last)
	p.bytes -= chunkSize(class)
	return b
}

// put takes b back; nobody may use it afterwards. A buffer that is not of get's
// sizes is dropped.
func (p *bufPool) put(b []byte) {
	if cap(b) < minChunk || cap(b) > maxChunk {
		return
	}
	class := chunkClass(cap(b))
	size := chunkSize(class)
	if cap(b) != size || p.bytes+size > maxPooled {
		return
	}
	p.free[class] = append(p.free[class], b[:0])
	p.bytes += size
}

// grow returns b with room for at least n more bytes, in another buffer if need be.
func (p *bufPool) grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	// At least doubled, so that filling it byte by byte stays linear.
	bigger := append(p.get(max(len(b)+n, 2*len(b))), b...)
	p.put(b)
	return bigger
}

// trim drops half of what was not needed since the last trim, so that a burst
// does not hold memory for ever. It reports whether buffers are left.
func (p *bufPool) trim() bool {
	left := false
	for class, free := range p.free {
		keep := len(free) - (p.spare[class]+1)/2
		clear(free[keep:])
		p.bytes -= (len(free) - keep) * chunkSize(class)
		if keep == 0 {
			p.free[class] = nil
		} else {
			p.free[class] = free[:keep]
			left = true
		}
		p.spare[class] = keep
	}
	return left
}

// chunkClass is the smallest class with room for n bytes, at most maxChunk.
func chunkClass(n int) int {
	if n <= minChunk {
		return 0
	}
	return (bits.Len(uint(n-1)) - 7) / 2
}

func chunkSize(class int) int { return minChunk << (2 * class) }
