package record

// DecodeSession1 reads the value of a session as Format 1 had it: with the will of
// its latest connection in it, nil if there is none. The will's slices are views
// over b.
func DecodeSession1(b []byte) (s Session, w *Will, err error) {
	const flagWill = 1 << 0
	r := reader{b: b}
	flags := r.byte()
	s = Session{
		ClientID: string(r.field()), Username: string(r.field()),
		Epoch: r.uvarint(), Expiry: r.uint32(), LostAt: r.uvarint(), Reply: string(r.field()),
	}
	if flags&flagWill == 0 {
		return s, nil, r.end()
	}
	w = &Will{Client: s.ClientID, User: s.Username, Delay: r.uint32(), Expiry: r.uint32()}
	if r.bad {
		return s, nil, ErrCorrupt
	}
	return s, w, w.Message.Decode(r.b)
}
