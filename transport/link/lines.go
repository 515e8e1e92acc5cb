package link

// Lines keeps something that can happen often from filling the log: it lets a
// number of lines through in a span of time and counts the others. It belongs to
// one goroutine; the zero value lets one line through in ten seconds.
type Lines struct {
	Most int   // lines in a span; 0 stands for 1
	Span int64 // nanoseconds; 0 stands for ten seconds

	began  int64
	n      int
	missed int
}

// Allow reports whether a line may be written at the time now, and how many were
// left out since the last one that was.
func (l *Lines) Allow(now int64) (missed int, ok bool) {
	span := l.Span
	if span == 0 {
		span = 10_000_000_000
	}
	if l.n == 0 || now-l.began >= span {
		l.began, l.n = now, 0
	}
	if l.n >= max(l.Most, 1) {
		l.missed++
		return 0, false
	}
	l.n++
	missed, l.missed = l.missed, 0
	return missed, true
}
