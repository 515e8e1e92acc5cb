// Package record is the format of the broker's durable state: the keys and
// values of a store. It knows no store and no broker, so the tools that look into
// a directory read what the broker wrote by the same code.
//
// An owner is what deliveries wait for: a session, by its number, or a share
// group, by GroupOwner. A row is the place of a delivery in its owner's order:
// rows of one owner only grow. Numbers in keys are big-endian, so that keys sort
// as they do. Nothing here depends on loops, shards or a hash seed.
//
//	d{name}            Meta: what belongs to the whole
//	s{session:8}       Session
//	u{session:8}{filter}  Subscription
//	q{owner:8}{row:8}  Delivery: a message that owner is to get
//	b{owner:8}{row:8}  Message: the body of a delivery that has it for itself
//	m{id:16}           Message: the body that several deliveries share
//	r{session:8}{PacketID:2}  a QoS 2 PUBLISH that came in and was not released; no value
//	t{topic}           Message: the retained message of topic
//	w{session:8}{n:8}  Will: of the n-th connection of session, which may have ended
//	                   or never have been stored: then it is due
//	x{owner:8}         owner is gone and its keys are being removed; no value
package record

import (
	"crypto/sha256"
	"encoding/binary"
)

// Format is the version of all that this package says. A store keeps it with
// the data, opens no newer one, and has a migration from each older one.
const Format = 2

// Kinds of keys, their first byte.
const (
	KindMeta         = 'd'
	KindSession      = 's'
	KindSubscription = 'u'
	KindDelivery     = 'q'
	KindBody         = 'b'
	KindShared       = 'm'
	KindReceived     = 'r'
	KindRetained     = 't'
	KindWill         = 'w'
	KindGone         = 'x'
)

// Names of Meta keys.
const (
	MetaNode  = "node"  // 16 bytes: the identity and secret of this store, made once
	MetaBoot  = "boot"  // uvarint: how often it was opened
	MetaClock = "clock" // uvarint: Unix milliseconds of the latest commit
)

// MessageID is the identity of a message: where it came into a broker, and its
// number there. It is never used twice.
type MessageID [16]byte

// groupBit tells share groups from sessions among owners.
const groupBit = 1 << 63

// GroupOwner is the owner that `$share/{name}/{filter}` is in the store of node.
func GroupOwner(node []byte, name, filter string) uint64 {
	h := sha256.New()
	h.Write(node)
	h.Write([]byte(name))
	h.Write([]byte{0})
	h.Write([]byte(filter))
	return binary.BigEndian.Uint64(h.Sum(nil)) | groupBit
}

// Origin stands for a client identifier in the messages that a store of node
// holds. It is never 0.
func Origin(node []byte, clientID string) uint64 {
	h := sha256.New()
	h.Write(node)
	h.Write([]byte(clientID))
	return binary.BigEndian.Uint64(h.Sum(nil)) | 1
}

// IsGroup reports whether owner is a share group.
func IsGroup(owner uint64) bool { return owner&groupBit != 0 }

// AppendMeta appends the key of a Meta value.
func AppendMeta(dst []byte, name string) []byte { return append(append(dst, KindMeta), name...) }

// AppendOwner appends the key of kind that belongs to owner, which is also the
// prefix of those that have more to them.
func AppendOwner(dst []byte, kind byte, owner uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, kind), owner)
}

// AppendRow appends the key of a row.
func AppendRow(dst []byte, kind byte, owner, row uint64) []byte {
	return binary.BigEndian.AppendUint64(AppendOwner(dst, kind, owner), row)
}

// AppendSubscription appends the key of a session's subscription to filter, as
// the client wrote it.
func AppendSubscription(dst []byte, session uint64, filter string) []byte {
	return append(AppendOwner(dst, KindSubscription, session), filter...)
}

// AppendWill appends the key of the will of a session's n-th connection.
func AppendWill(dst []byte, session, n uint64) []byte { return AppendRow(dst, KindWill, session, n) }

// AppendReceived appends the key of a received Packet Identifier.
func AppendReceived(dst []byte, session uint64, id uint16) []byte {
	return binary.BigEndian.AppendUint16(AppendOwner(dst, KindReceived, session), id)
}

// AppendShared appends the key of a shared body.
func AppendShared(dst []byte, id MessageID) []byte {
	return append(append(dst, KindShared), id[:]...)
}

// AppendRetained appends the key of the retained message of topic.
func AppendRetained(dst []byte, topic []byte) []byte {
	return append(append(dst, KindRetained), topic...)
}

// End returns the first key behind all that begin with prefix, which is not
// empty and has a byte below 0xFF: the upper bound of a scan.
func End(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return end
}

// Owner returns the owner in a key of those kinds that have one, and what
// follows it; ok is false if the key is too short.
func Owner(key []byte) (owner uint64, rest []byte, ok bool) {
	if len(key) < 9 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint64(key[1:]), key[9:], true
}

// Row returns the owner and row in the key of a delivery or a body of one.
func Row(key []byte) (owner, row uint64, ok bool) {
	if len(key) != 17 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), binary.BigEndian.Uint64(key[9:]), true
}
