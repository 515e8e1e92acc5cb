package ws

import "errors"

// plainInflate is RFC 1951 in its simplest form, to hold the fast code against:
// it also returns the largest distance that data refers back to. in is the data
// of one message, without its tail.
func plainInflate(in []byte) (out []byte, distance int, err error) {
	z := &plain{in: append(append([]byte(nil), in...), deflateTail...)}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(error)
			if !ok {
				panic(r)
			}
			err = e
		}
	}()
	for final := false; !final; {
		final = z.bits(1) == 1
		switch z.bits(2) {
		case 0:
			z.stored()
		case 1:
			z.block(fixedLengths[:288], fixedLengths[288:])
		case 2:
			z.dynamic()
		default:
			panic(errPlainData)
		}
	}
	return z.out, z.distance, nil
}

var errPlainData = errors.New("bad data")

var fixedLengths = func() (n [288 + 30]uint8) {
	for i := range n {
		switch {
		case i < 144:
			n[i] = 8
		case i < 256:
			n[i] = 9
		case i < 280:
			n[i] = 7
		case i < 288:
			n[i] = 8
		default:
			n[i] = 5
		}
	}
	return n
}()

type plain struct {
	in       []byte
	at       int // in bits
	out      []byte
	distance int
}

func (z *plain) bits(n int) (v int) {
	for i := range n {
		if z.at>>3 >= len(z.in) {
			panic(errPlainData)
		}
		v |= int(z.in[z.at>>3]>>(z.at&7)&1) << i
		z.at++
	}
	return v
}

func (z *plain) stored() {
	z.at = (z.at + 7) &^ 7
	n := z.bits(16)
	if z.bits(16) != n^0xffff {
		panic(errPlainData)
	}
	for range n {
		z.out = append(z.out, byte(z.bits(8)))
	}
}

// symbol decodes one symbol of the canonical code with the given lengths.
func (z *plain) symbol(lengths []uint8) int {
	var count [16]int
	for _, n := range lengths {
		count[n]++
	}
	code, first := 0, 0
	for n := 1; n < 16; n++ {
		code = code<<1 | z.bits(1)
		if code-first < count[n] {
			k := code - first
			for s, l := range lengths {
				if int(l) == n {
					if k == 0 {
						return s
					}
					k--
				}
			}
		}
		first = (first + count[n]) << 1
	}
	panic(errPlainData)
}

func (z *plain) dynamic() {
	nlit, ndist, ncode := z.bits(5)+257, z.bits(5)+1, z.bits(4)+4
	var codes [19]uint8
	for _, i := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:ncode] {
		codes[i] = uint8(z.bits(3))
	}
	var lengths []uint8
	for len(lengths) < nlit+ndist {
		s, value := z.symbol(codes[:]), uint8(0)
		var n int
		switch s {
		case 16:
			if len(lengths) == 0 {
				panic(errPlainData)
			}
			value, n = lengths[len(lengths)-1], 3+z.bits(2)
		case 17:
			n = 3 + z.bits(3)
		case 18:
			n = 11 + z.bits(7)
		default:
			value, n = uint8(s), 1
		}
		for range n {
			lengths = append(lengths, value)
		}
	}
	if len(lengths) > nlit+ndist {
		panic(errPlainData)
	}
	z.block(lengths[:nlit], lengths[nlit:])
}

func (z *plain) block(lits, dists []uint8) {
	base := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	for {
		s := z.symbol(lits)
		if s < 256 {
			z.out = append(z.out, byte(s))
			continue
		}
		if s == 256 {
			return
		}
		s -= 257
		if s >= len(base) {
			panic(errPlainData)
		}
		extra := 0
		if s >= 8 && s < 28 {
			extra = s/4 - 1
		}
		n := base[s] + z.bits(extra)
		d := z.symbol(dists)
		switch {
		case d >= 30:
			panic(errPlainData)
		case d >= 4:
			e := d/2 - 1
			d = (2+d&1)<<e + z.bits(e)
		}
		d++
		if d > len(z.out) {
			panic(errPlainData)
		}
		z.distance = max(z.distance, d)
		for range n {
			z.out = append(z.out, z.out[len(z.out)-d])
		}
	}
}
