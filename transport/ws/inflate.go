package ws

import (
	"errors"
	"io"

	"github.com/klauspost/compress/flate"
)

// deflateTail is what a sender takes off the end of a compressed message (RFC
// 7692 section 7.2.1), and an empty final block, at which the decompressor ends.
const deflateTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// maxFinals bounds the blocks of one message that call themselves final. Each
// but the last starts the decompressor anew, with up to 32 KiB of history.
const maxFinals = 16

// inflater is a decompressor that starts from nothing for each message.
type inflater struct {
	r   io.ReadCloser // also a flate.Resetter
	src source
}

// source reads a compressed message and then deflateTail. It offers single
// bytes, so that the decompressor takes none beyond a final block.
type source struct {
	p    []byte
	tail string
}

func (s *source) Len() int { return len(s.p) + len(s.tail) }

func (s *source) Read(b []byte) (int, error) {
	n := copy(b, s.p)
	s.p = s.p[n:]
	k := copy(b[n:], s.tail)
	s.tail = s.tail[k:]
	if n+k == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n + k, nil
}

func (s *source) ReadByte() (byte, error) {
	if len(s.p) > 0 {
		c := s.p[0]
		s.p = s.p[1:]
		return c, nil
	}
	if len(s.tail) > 0 {
		c := s.tail[0]
		s.tail = s.tail[1:]
		return c, nil
	}
	return 0, io.EOF
}

// Inflate decompresses one message and returns it; the result is valid until
// the next call. It fails with an *Error, 1009 for a message that would be
// larger than limit bytes and 1007 for one that is damaged. Never more than
// limit bytes, and some slack, are produced, whatever p promises.
func (c *Codec) Inflate(p []byte, limit int64) ([]byte, error) {
	if cap(c.inflated) > maxKeptBuffer {
		c.inflated = nil
	}
	out, err := c.inflater.append(c.inflated[:0], p, limit)
	c.inflated = out
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (z *inflater) append(dst, p []byte, limit int64) ([]byte, error) {
	z.src = source{p: p, tail: deflateTail}
	defer func() { z.src = source{} }()

	for range maxFinals {
		// The history reaches back over final blocks (RFC 7692 section 7.2.3.4).
		history := dst[max(0, len(dst)-1<<maxWindowBits):]
		if z.r == nil {
			z.r = flate.NewReaderDict(&z.src, history)
		} else if err := z.r.(flate.Resetter).Reset(&z.src, history); err != nil {
			return dst, errDeflate
		}
		var err error
		if dst, err = readAll(dst, z.r, limit); err != nil {
			return dst, err
		}
		if z.src.Len() == 0 {
			return dst, nil
		}
	}
	return dst, errDeflate
}

// readAll appends what r has to dst, to which no more than limit bytes in all
// are allowed.
func readAll(dst []byte, r io.Reader, limit int64) ([]byte, error) {
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, make([]byte, min(max(1024, len(dst)), maxKeptBuffer))...)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if int64(len(dst)) > limit {
			return dst, errTooBig
		}
		if errors.Is(err, io.EOF) {
			return dst, nil
		}
		if err != nil {
			return dst, errDeflate
		}
	}
}
