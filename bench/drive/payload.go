package drive

import "encoding/binary"

// HeaderSize is the smallest payload: flow, sequence number and time stamp.
const HeaderSize = 16

// putHeader writes the head of a payload: flow, the low half of the sequence
// number, and the time in ns that latency counts from.
func putHeader(b []byte, flow uint32, seq uint64, at int64) {
	binary.BigEndian.PutUint32(b, flow)
	binary.BigEndian.PutUint32(b[4:], uint32(seq))
	binary.BigEndian.PutUint64(b[8:], uint64(at))
}

func readHeader(b []byte) (flow, seq uint32, at int64) {
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), int64(binary.BigEndian.Uint64(b[8:]))
}
