package wire

import "encoding/binary"

// AckSize is the most bytes that PutAck writes.
const AckSize = 5

// PutAck writes PUBACK, PUBREC, PUBREL or PUBCOMP to dst, which has room for
// AckSize bytes, in the shortest form (a reason of 0, and any reason below V5,
// is left out), and returns its length.
func PutAck(dst []byte, t Type, v Version, id uint16, reason ReasonCode) int {
	dst[0] = byte(t) << 4
	if t == PUBREL {
		dst[0] |= flagsRequired
	}
	binary.BigEndian.PutUint16(dst[2:], id)
	if reason == Success || v < V5 {
		dst[1] = 2
		return 4
	}
	dst[1] = 3
	dst[4] = byte(reason)
	return 5
}

// ReadAck reads the body of a PUBACK, PUBREC, PUBREL or PUBCOMP. It checks the
// properties and that the reason code is one of that packet type's. No
// allocation unless it fails.
func ReadAck(h Header, body []byte, v Version, lim *Limits) (id uint16, reason ReasonCode, err error) {
	if err := checkDupFlag(h, v); err != nil {
		return 0, 0, err
	}
	if len(body) < 2 {
		return 0, 0, malformed("", "packet ends within Packet Identifier")
	}
	if id = binary.BigEndian.Uint16(body); id == 0 {
		return 0, 0, violation("MQTT-2.2.1-5", "Packet Identifier is 0")
	}
	if len(body) == 2 {
		return id, Success, nil
	}
	if v < V5 {
		return 0, 0, malformed("", "bytes after the end of the packet")
	}
	reason = ReasonCode(body[2])
	if err := checkAckReason(h.Type, reason); err != nil {
		return 0, 0, err
	}
	if len(body) == 3 { // the Property Length may be left out: sections 3.4.2.2.1 and its like
		return id, reason, nil
	}
	r := reader{b: body[3:]}
	ps := r.properties(h.Type, lim)
	for ps.advance() {
	}
	if ps.err != nil {
		return 0, 0, ps.err
	}
	if r.end(); r.err != nil {
		return 0, 0, r.err
	}
	return id, reason, nil
}

func checkAckReason(t Type, r ReasonCode) error {
	switch t {
	case PUBACK:
		return checkReason(r, &pubackReasons, "MQTT-3.4.2-1")
	case PUBREC:
		return checkReason(r, &pubackReasons, "MQTT-3.5.2-1")
	case PUBREL:
		return checkReason(r, &pubrelReasons, "MQTT-3.6.2-1")
	}
	return checkReason(r, &pubrelReasons, "MQTT-3.7.2-1")
}
