package codec

import "encoding/binary"

// Opcodes of RFC 6455 §5.2.
const (
	OpContinuation byte = 0
	OpText         byte = 1
	OpBinary       byte = 2
	OpClose        byte = 8
	OpPing         byte = 9
	OpPong         byte = 10
)

// AppendFrame appends one final frame with payload, masked by key, to dst.
// A client must mask each frame (RFC 6455 §5.3); payload itself stays as it is.
func AppendFrame(dst []byte, op byte, key uint32, payload []byte) []byte {
	n := len(payload)
	switch {
	case n < 126:
		dst = append(dst, 0x80|op, 0x80|byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|op, 0x80|126, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|op, 0x80|127), uint64(n))
	}
	dst = binary.LittleEndian.AppendUint32(dst, key)
	at := len(dst)
	dst = append(dst, payload...)
	mask(dst[at:], key)
	return dst
}

// mask applies key, in the byte order AppendFrame writes it, to b in place.
func mask(b []byte, key uint32) {
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(key >> (8 * (uint(i) & 3)))
	}
}

// Deframer takes a server's WebSocket frames apart, whatever way the bytes are
// cut. The zero value is ready.
type Deframer struct {
	left    uint64 // payload bytes of the current frame that are still to come
	op      byte   // of the current frame
	inFrame bool
	inMsg   bool // between a first fragment and its last one
	fin     bool
	n       uint8    // bytes in hdr
	hdr     [10]byte // a header that a read cut in two
	control []byte   // payload so far of a control frame
}

// Deframe reads frames from buf[from:] and moves the payload of data frames
// down to buf[to:], so that it lies there in one piece; to must not exceed
// from. It returns the end of that piece. control gets each complete control
// frame; the payload it sees is valid until it returns. All bytes are used up.
func (d *Deframer) Deframe(buf []byte, from, to int, control func(op byte, payload []byte) error) (int, error) {
	for {
		if !d.inFrame {
			used, ok, err := d.header(buf[from:])
			if err != nil {
				return to, err
			}
			from += used
			if !ok {
				return to, nil
			}
		}
		n := uint64(len(buf) - from)
		if n > d.left {
			n = d.left
		}
		chunk := buf[from : from+int(n)]
		from += int(n)
		d.left -= n
		if d.op < OpClose {
			to += copy(buf[to:], chunk)
		} else {
			d.control = append(d.control, chunk...)
		}
		if d.left > 0 {
			return to, nil
		}
		d.inFrame = false
		if d.op >= OpClose {
			err := control(d.op, d.control)
			d.control = d.control[:0]
			if err != nil {
				return to, err
			}
		}
	}
}

// header reads a frame header from b, which may continue one begun before.
func (d *Deframer) header(b []byte) (used int, ok bool, err error) {
	h := b
	if d.n > 0 || len(b) < 10 {
		// Slow path: gather byte by byte until the header is whole.
		for d.n < 2 || int(d.n) < headerSize(d.hdr[1]) {
			if used == len(b) {
				return used, false, nil
			}
			d.hdr[d.n] = b[used]
			d.n++
			used++
		}
		h = d.hdr[:d.n]
		d.n = 0
	} else {
		used = headerSize(b[1])
	}
	return used, true, d.open(h)
}

func (d *Deframer) open(h []byte) error {
	d.op, d.fin = h[0]&15, h[0]&0x80 != 0
	if h[0]&0x70 != 0 {
		return Error("frame with a reserved bit set")
	}
	if h[1]&0x80 != 0 {
		return Error("masked frame from a server")
	}
	switch n := h[1] & 0x7f; n {
	case 126:
		d.left = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		d.left = binary.BigEndian.Uint64(h[2:])
		if d.left>>63 != 0 {
			return Error("frame length with its top bit set")
		}
	default:
		d.left = uint64(n)
	}
	switch d.op {
	case OpBinary:
		if d.inMsg {
			return Error("new message inside a fragmented one")
		}
		d.inMsg = !d.fin
	case OpContinuation:
		if !d.inMsg {
			return Error("continuation of nothing")
		}
		d.inMsg = !d.fin
	case OpClose, OpPing, OpPong:
		if !d.fin || d.left > 125 {
			return Error("control frame fragmented or too long")
		}
	default:
		return Error("frame that is not binary")
	}
	d.inFrame = true
	return nil
}

// headerSize is the length of an unmasked frame's header by its second byte.
func headerSize(second byte) int {
	switch second & 0x7f {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}
