package drive

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Counters are a running Loop's totals, for whoever watches. They are stored
// once per tick; any goroutine, or another process that maps them, may load.
type Counters [8]atomic.Uint64

// Indexes into Counters.
const (
	Sent       = iota // messages published
	Expected          // deliveries that these should cause
	Delivered         // first copies that reached a receiver; round trips in the request scenario
	Connected         // CONNACKs that came
	Ready             // connections that stand and have their subscriptions
	Failed            // connections that never got ready
	Stalls            // times that a closed loop gave up waiting
	Publishing        // publishers whose connection stands; a run without any is over
)

// Tally is what a Loop counted over its whole life, warm-up included.
type Tally struct {
	Sent        uint64 `json:"sent"`
	Expected    uint64 `json:"expected"`  // deliveries that Sent should have caused
	Delivered   uint64 `json:"delivered"` // first copies that came
	Lost        uint64 `json:"lost"`      // by gaps in the sequences, at the end
	Duplicates  uint64 `json:"duplicates"`
	Flagged     uint64 `json:"duplicates_flagged"` // of them with DUP set
	Disordered  uint64 `json:"disordered"`         // came after a later one of the same flow
	Strange     uint64 `json:"strange"`            // not for this receiver, or changed on the way
	Refused     uint64 `json:"refused"`            // acknowledged with a failure
	StrayAcks   uint64 `json:"stray_acks"`         // acknowledgements of nothing
	Stalls      uint64 `json:"stalls"`
	Unsent      uint64 `json:"unsent"` // open loop: due, but the broker did not take them in time
	Connected   uint64 `json:"connected"`
	Failed      uint64 `json:"failed"`
	Disconnects uint64 `json:"disconnects"`
}

// Add adds o to t.
func (t *Tally) Add(o *Tally) {
	t.Sent += o.Sent
	t.Expected += o.Expected
	t.Delivered += o.Delivered
	t.Lost += o.Lost
	t.Duplicates += o.Duplicates
	t.Flagged += o.Flagged
	t.Disordered += o.Disordered
	t.Strange += o.Strange
	t.Refused += o.Refused
	t.StrayAcks += o.StrayAcks
	t.Stalls += o.Stalls
	t.Unsent += o.Unsent
	t.Connected += o.Connected
	t.Failed += o.Failed
	t.Disconnects += o.Disconnects
}

// Trouble lists what is not zero and should be; it is empty if all went well.
func (t *Tally) Trouble() string {
	var parts []string
	for _, x := range []struct {
		n    uint64
		what string
	}{
		{t.Lost, "lost"}, {t.Duplicates, "duplicates"}, {t.Disordered, "out of order"}, {t.Strange, "strange"},
		{t.Stalls, "stalls of a publisher"}, {t.Unsent, "unsent"}, {t.Failed, "failed to connect"}, {t.Disconnects, "disconnected"},
		{t.Refused, "refused"}, {t.StrayAcks, "stray acknowledgements"},
	} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	return strings.Join(parts, ", ")
}

// Outcome is what one Loop hands back.
type Outcome struct {
	Tally    Tally          `json:"tally"`
	Latency  []byte         `json:"latency"`  // histogram in ns, HDR V2 compressed
	Quota    int            `json:"quota"`    // the smallest Receive Maximum that a publisher was given; 0 without publishers
	Connects []byte         `json:"connects"` // dial to CONNACK, the same
	Errors   map[string]int `json:"errors,omitempty"`
}

// hdrVersion is the histogram's wire format: compressed V2.
const hdrVersion = hdrhistogram.V2CompressedEncodingCookieBase

// count is the Loop's own copy of its totals.
type count struct {
	sent, delivered, duplicates, flagged, disordered uint64
	strange, refused, strayAcks, stalls, received    uint64
	unsent, connected, ready, failed, disconnects    uint64
	publishing                                       uint64
}

// histogram records durations in ns from 1 µs to 10 minutes, three digits.
type histogram struct{ *hdrhistogram.Histogram }

// NewHistogram returns an empty histogram of the kind an Outcome holds.
func NewHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1000, 600e9, 3)
}

func (h histogram) record(ns int64) {
	// Out of range is clamped: a negative or huge value must not vanish.
	_ = h.RecordValue(min(max(ns, 0), 600e9))
}
