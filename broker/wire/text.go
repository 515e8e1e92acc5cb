package wire

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"
)

// Eight bytes at a time: each byte of a word on its own.
const (
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
	sevens = highs - ones // 0x7F in each byte
)

// zeroBytes has the top bit of each byte of w that is zero. No byte of w may
// be above 0x7F, so that none carries into the next.
func zeroBytes(w uint64) uint64 { return ^(w + sevens) & highs }

// checkText refuses what no UTF-8 Encoded String may hold: ill-formed UTF-8,
// which includes surrogates and overlong forms, and U+0000.
func checkText(b []byte, what string) error {
	for i := 0; ; i += 8 {
		if len(b)-i < 8 {
			for ; i < len(b); i++ {
				if c := b[i]; c == 0 || c >= utf8.RuneSelf {
					return checkTextSlow(b, what)
				}
			}
			return nil
		}
		w := binary.LittleEndian.Uint64(b[i:])
		if w&highs != 0 || zeroBytes(w) != 0 {
			return checkTextSlow(b, what)
		}
	}
}

func checkTextSlow(b []byte, what string) error {
	if !utf8.Valid(b) {
		return malformed("MQTT-1.5.4-1", what+" is not well-formed UTF-8")
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return malformed("MQTT-1.5.4-2", what+" contains U+0000")
	}
	return nil
}

// checkTopicName refuses a topic name that is ill-formed UTF-8 or holds U+0000
// (Malformed Packet), or has a wildcard or is beyond the limits (Topic Name
// invalid). It allows the empty name.
func checkTopicName(b []byte, lim *Limits, what string) error {
	slashes, wild := 0, false
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		if w&highs != 0 || zeroBytes(w) != 0 {
			return checkTopicNameSlow(b, lim, what)
		}
		wild = wild || zeroBytes(w^('+'*ones))|zeroBytes(w^('#'*ones)) != 0
		slashes += bits.OnesCount64(zeroBytes(w ^ ('/' * ones)))
	}
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '/':
			slashes++
		case c == '+' || c == '#':
			wild = true
		case c == 0 || c >= utf8.RuneSelf:
			return checkTopicNameSlow(b, lim, what)
		}
	}
	return topicNameVerdict(b, slashes, wild, lim, what)
}

func checkTopicNameSlow(b []byte, lim *Limits, what string) error {
	if err := checkTextSlow(b, what); err != nil {
		return err
	}
	return topicNameVerdict(b, bytes.Count(b, []byte{'/'}), bytes.ContainsAny(b, "+#"), lim, what)
}

func topicNameVerdict(b []byte, slashes int, wild bool, lim *Limits, what string) error {
	if wild {
		return &Error{Reason: TopicNameInvalid, Clause: "MQTT-3.3.2-2", Detail: what + " contains a wildcard"}
	}
	if lim == nil {
		return nil
	}
	if lim.TopicLength > 0 && len(b) > lim.TopicLength {
		return &Error{Reason: TopicNameInvalid, Detail: what + " is longer than " + strconv.Itoa(lim.TopicLength) + " bytes"}
	}
	if lim.TopicLevels > 0 && slashes >= lim.TopicLevels {
		return &Error{Reason: TopicNameInvalid, Detail: what + " has more than " + strconv.Itoa(lim.TopicLevels) + " levels"}
	}
	return nil
}

// checkResponseTopic is for the Response Topic of a PUBLISH or a will, whose
// UTF-8 is checked already.
func checkResponseTopic(b []byte) error {
	if len(b) == 0 {
		return violation("MQTT-4.7.3-1", "Response Topic is empty")
	}
	if bytes.IndexByte(b, '+') >= 0 || bytes.IndexByte(b, '#') >= 0 {
		return violation("MQTT-3.3.2-14", "Response Topic contains a wildcard")
	}
	return nil
}
