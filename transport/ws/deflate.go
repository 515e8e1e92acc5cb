package ws

import (
	"encoding/binary"

	"github.com/klauspost/compress/flate"

	"hashplus/transport/link"
)

const (
	// minDeflate is the least number of bytes that compression is tried on. In
	// fewer the compressor does not look for repetitions, and Huffman codes alone
	// do not earn their own description.
	minDeflate = 128

	maxStored    = 0xffff // bytes in a stored block
	storedHeader = 5

	// syncTail ends what the compressor flushes and is not sent (RFC 7692
	// section 7.2.1).
	syncTail = "\x00\x00\xff\xff"
)

// sink is the compressors' output.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// WindowBits is the server's window for f, which is Compressed.
func WindowBits(f link.Framing) int { return int(f - link.Deflate) }

// DeflateFraming is the framing with permessage-deflate and a server window of
// bits, 8 to 15.
func DeflateFraming(bits int) link.Framing { return link.Deflate + link.Framing(bits) }

// AppendFrame appends packet to dst in one frame as f says, and returns the
// extended slice and the offset in it of the packet's first lit bytes, which
// stand there verbatim; see link.Loop. It keeps nothing.
func (c *Codec) AppendFrame(dst []byte, f link.Framing, packet []byte, lit int) (frame []byte, at int) {
	switch {
	case f == link.Raw:
		return append(dst, packet...), len(dst)
	case f.Compressed():
		return c.AppendDeflated(dst, WindowBits(f), packet, lit)
	default:
		return appendPlain(dst, packet)
	}
}

// AppendDeflated is AppendFrame for a window of windowBits bits, 8 to 15. The
// first lit bytes, at most 65,535, are put in a stored block (RFC 1951 section
// 3.2.4), so that they can be patched, and the rest is compressed. A packet that
// is short or does not get smaller is framed without compression.
func (c *Codec) AppendDeflated(dst []byte, windowBits int, packet []byte, lit int) (frame []byte, at int) {
	if len(packet)-lit < max(minDeflate, c.MinSize) || lit > maxStored {
		return appendPlain(dst, packet)
	}
	z := c.deflate(windowBits, packet, lit)
	if len(z) >= len(packet) {
		return appendPlain(dst, packet)
	}
	dst = AppendHeader(dst, finBit|rsv1Bit|byte(opOf(false)), len(z))
	at = len(dst)
	if lit > 0 {
		at += storedHeader
	}
	return append(dst, z...), at
}

// AppendMessage appends p as one message framed as f, which is not Raw,
// compressed where that was negotiated and makes it smaller.
func (c *Codec) AppendMessage(dst []byte, f link.Framing, isText bool, p []byte) []byte {
	if f.Compressed() && len(p) >= minDeflate {
		if z := c.deflate(WindowBits(f), p, 0); len(z) < len(p) {
			return append(AppendHeader(dst, finBit|rsv1Bit|byte(opOf(isText)), len(z)), z...)
		}
	}
	return AppendMessage(dst, isText, p)
}

func appendPlain(dst, packet []byte) (frame []byte, at int) {
	dst = AppendHeader(dst, finBit|byte(opOf(false)), len(packet))
	return append(dst, packet...), len(dst)
}

// deflate compresses p on its own, without the history of earlier messages:
// they were compressed for other receivers too. The result is valid until the
// next call.
func (c *Codec) deflate(windowBits int, p []byte, lit int) []byte {
	if cap(c.deflated.b) > maxKeptBuffer {
		c.deflated.b = nil
	}
	c.deflated.b = c.deflated.b[:0]
	if lit > 0 {
		// A block that is not final, of type 00, and its padding: one zero byte.
		b := append(c.deflated.b, 0)
		b = binary.LittleEndian.AppendUint16(b, uint16(lit))
		b = binary.LittleEndian.AppendUint16(b, ^uint16(lit))
		c.deflated.b = append(b, p[:lit]...)
	}
	z := c.deflater(windowBits)
	z.Reset(&c.deflated)
	// The sink cannot fail, so neither can these.
	_, _ = z.Write(p[lit:])
	_ = z.Flush()
	b := c.deflated.b
	return b[:len(b)-len(syncTail)]
}

func (c *Codec) deflater(windowBits int) *flate.Writer {
	z := &c.deflaters[windowBits-minWindowBits]
	if *z == nil {
		w, err := flate.NewWriterWindow(&c.deflated, 1<<windowBits)
		if err != nil {
			panic(err) // the window is in range
		}
		*z = w
	}
	return *z
}
