package broker

import (
	"encoding/binary"
	"errors"
)

// ErrStoreDamaged is in errors of a Store that has found stored data damaged.
// To close and open it again does not help.
var ErrStoreDamaged = errors.New("the stored data are damaged")

// Store keeps durable state: a map from keys to values, sorted by key as bytes.
// What the keys and values mean is package record's to say.
//
// Apply is called by one goroutine at a time; all else may be called by any, and
// at the same time.
type Store interface {
	// Apply makes the operations of b take effect in their order, all together or
	// not at all. When it returns, Get and Scan see them. They survive the loss of
	// power once wait has returned nil (or what the store's sync policy promises
	// instead); durability comes in the order of the calls: what was applied later
	// never survives without what was applied before. wait is called once, on any
	// goroutine, and may block. b must not change until wait has returned.
	//
	// After an error of Apply or of wait the store is poisoned: all that follows
	// fails with that error, whatever the disk does. What was applied and not
	// waited for may have survived or not. The way on is Close and a new store.
	Apply(b *Batch) (wait func() error, err error)

	// Get returns a copy of the value of key; ok is false if there is none.
	Get(key []byte) (value []byte, ok bool, err error)

	// Scan calls f for the keys in [from, to), in order, until f returns false; if
	// to is nil, to the last key. key and value are valid until f returns. It sees
	// the state at one moment. f may call Apply, Get and Scan.
	Scan(from, to []byte, f func(key, value []byte) (more bool)) error

	// Free is the number of bytes that the file system of the store has left.
	Free() (uint64, error)

	// Checkpoint writes a consistent copy of the store into a directory that does
	// not exist yet, while the store goes on.
	Checkpoint(dir string) error

	// Close releases the store. It waits for nothing that was not waited for. An
	// error means that the files may still be held: they cannot be opened again by
	// this process.
	Close() error
}

// Tender is a Store that wants to be told that time goes by. A timer of its own
// would cost those who don't use it: while one is pending the runtime looks at it
// whenever an event loop goes to sleep.
type Tender interface {
	// Tend is called about once a second while the store is in use. It does not
	// block. An error says that the store has failed, and Apply would, too.
	Tend() error
}

// Inspected is a Store that knows what it has found damaged since it was opened.
type Inspected interface {
	// Damage is in how many files it was found, and the first of it, an
	// ErrStoreDamaged; 0 and nil if all that was read is sound. Any goroutine.
	Damage() (files int, first error)
}

// Batch is a list of operations on a Store. Its keys and values are copied in.
// The zero value is empty.
type Batch struct {
	ops []byte // for each: kind, length of key, key, length of value, value
	n   int
}

// Op is the kind of an operation.
type Op byte

// Operations.
const (
	OpSet         Op = 1 // of a key to a value
	OpDelete      Op = 2 // of a key, which need not be there
	OpDeleteRange Op = 3 // of all keys from the first on, up to the second exclusive
)

// Set gives key the value.
func (b *Batch) Set(key, value []byte) { b.add(OpSet, key, value) }

// Delete removes key.
func (b *Batch) Delete(key []byte) { b.add(OpDelete, key, nil) }

// DeleteRange removes the keys in [from, to).
func (b *Batch) DeleteRange(from, to []byte) { b.add(OpDeleteRange, from, to) }

// Len is the number of operations.
func (b *Batch) Len() int { return b.n }

// Size is the memory that the operations take, in bytes.
func (b *Batch) Size() int { return len(b.ops) }

// Reset empties b and keeps its memory.
func (b *Batch) Reset() { b.ops, b.n = b.ops[:0], 0 }

// Append adds the operations of o.
func (b *Batch) Append(o *Batch) {
	b.ops = append(b.ops, o.ops...)
	b.n += o.n
}

// Each calls f for every operation, in order. The slices are views.
func (b *Batch) Each(f func(op Op, key, value []byte)) {
	for p := b.ops; len(p) > 0; {
		op := Op(p[0])
		var key, value []byte
		key, p = cutBytes(p[1:])
		value, p = cutBytes(p)
		f(op, key, value)
	}
}

func (b *Batch) add(op Op, key, value []byte) {
	b.ops = append(b.ops, byte(op))
	b.ops = binary.AppendUvarint(b.ops, uint64(len(key)))
	b.ops = append(b.ops, key...)
	b.ops = binary.AppendUvarint(b.ops, uint64(len(value)))
	b.ops = append(b.ops, value...)
	b.n++
}

func cutBytes(p []byte) (field, rest []byte) {
	n, k := binary.Uvarint(p)
	return p[k : k+int(n)], p[k+int(n):]
}
