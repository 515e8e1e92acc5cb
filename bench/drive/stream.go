package drive

// stream accounts for one flow as one receiver sees it. It is exact: it
// remembers each gap, so a late message, a duplicate and a lost one are told
// apart however far they lie apart. The zero value expects sequence number 0.
type stream struct {
	next uint64 // one past the highest sequence number seen
	gaps []gap  // what is missing below next, ascending, never empty ones
}

// gap is the missing sequence numbers lo ≤ n < hi.
type gap struct{ lo, hi uint64 }

// arrival is what a message was to its stream.
type arrival uint8

const (
	inOrder   arrival = iota // first copy, nothing of the stream came after it
	late                     // first copy, but a later message came before it
	duplicate                // a copy came before
)

// extend restores the whole sequence number from its low 32 bits: the one
// nearest to what the stream expects.
func (s *stream) extend(low uint32) uint64 {
	seq := int64(s.next) + int64(int32(low-uint32(s.next)))
	if seq < 0 {
		seq = int64(low)
	}
	return uint64(seq)
}

// take notes the arrival of seq.
func (s *stream) take(seq uint64) arrival {
	if seq == s.next {
		s.next++
		return inOrder
	}
	if seq > s.next {
		s.gaps = append(s.gaps, gap{s.next, seq})
		s.next = seq + 1
		return inOrder
	}
	// Late and duplicate messages are mostly recent, so look from the end.
	for i := len(s.gaps) - 1; i >= 0; i-- {
		g := &s.gaps[i]
		if seq >= g.hi {
			return duplicate
		}
		if seq < g.lo {
			continue
		}
		switch {
		case g.lo+1 == g.hi:
			s.gaps = append(s.gaps[:i], s.gaps[i+1:]...)
		case seq == g.lo:
			g.lo++
		case seq == g.hi-1:
			g.hi--
		default:
			s.gaps = append(s.gaps, gap{})
			copy(s.gaps[i+2:], s.gaps[i+1:])
			s.gaps[i+1] = gap{seq + 1, g.hi}
			s.gaps[i].hi = seq
		}
		return late
	}
	return duplicate
}

// missing is how many of the first sent messages never came.
func (s *stream) missing(sent uint64) uint64 {
	var n uint64
	for _, g := range s.gaps {
		n += g.hi - g.lo
	}
	if sent > s.next {
		n += sent - s.next
	}
	return n
}
