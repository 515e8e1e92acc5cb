package transport

import (
	"testing"
	"unsafe"
)

// An idle connection is its conn, a slot and a place on the ready list; buffers
// and queues come and go.
func TestConn_IdleStateIsSmall(t *testing.T) {
	const limit = 512 // bytes; a size class of the allocator
	if n := unsafe.Sizeof(conn{}); n > limit {
		t.Errorf("a connection has %d bytes, more than %d", n, limit)
	} else {
		t.Logf("a connection has %d bytes", n)
	}
}
