package drive

// Finish counts what was lost and hands the results over. All processes must
// have ended Drive.
func (l *Loop) Finish() (*Outcome, error) {
	o := &Outcome{Errors: l.errors}
	n := &l.count
	o.Tally = Tally{
		Sent: n.sent, Expected: l.expected, Delivered: n.delivered, Duplicates: n.duplicates, Flagged: n.flagged,
		Disordered: n.disordered, Strange: n.strange, Refused: n.refused, StrayAcks: n.strayAcks, Stalls: n.stalls,
		Connected: n.connected, Failed: n.failed, Disconnects: n.disconnects, Unsent: n.unsent, Lost: l.lost(),
	}
	for i := range l.senders {
		if c := l.senders[i].conn; c != nil && (o.Quota == 0 || c.quota < o.Quota) {
			o.Quota = c.quota
		}
	}
	var err error
	if o.Latency, err = l.latency.Encode(hdrVersion); err != nil {
		return nil, err
	}
	o.Connects, err = l.connects.Encode(hdrVersion)
	return o, err
}

// lost sums the gaps of this loop's streams, each of them once. Streams that
// clients of several processes share are nobody's here: see Client.Shared.
func (l *Loop) lost() (n uint64) {
	seen := make([]bool, len(l.streams))
	for _, i := range l.mine {
		cl := &l.plan.Clients[i]
		if cl.Echo || cl.Stall {
			continue
		}
		for k := range cl.Flows {
			at := cl.StreamBase + k
			if seen[at] || l.plan.Owner != nil && !l.plan.Owner(i, cl.FlowBase+k) {
				continue
			}
			seen[at] = true
			n += l.streams[at].missing(l.shared.Seq[cl.FlowBase+k].Load())
		}
	}
	return n
}
