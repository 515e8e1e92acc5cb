package auth

import (
	"encoding/binary"
	"errors"
)

// claimsVersion is the first byte of stored Claims.
const claimsVersion = 1

var errStoredClaims = errors.New("auth: stored claims are not what was written")

// MarshalBinary implements encoding.BinaryMarshaler: what a broker stores of c with
// the will of its client. ReadClaims is its inverse.
func (c *Claims) MarshalBinary() ([]byte, error) {
	b := []byte{claimsVersion}
	for _, filters := range [][]string{c.Publish, c.Subscribe} {
		n := 0 // for nil
		if filters != nil {
			n = len(filters) + 1
		}
		b = binary.AppendUvarint(b, uint64(n))
		for _, f := range filters {
			b = append(binary.AppendUvarint(b, uint64(len(f))), f...)
		}
	}
	return b, nil
}

// ReadClaims makes Claims of what MarshalBinary has returned; it is for
// broker.Options.ReadData. They are held to what NewClaims allows.
func ReadClaims(b []byte) (any, error) {
	if len(b) == 0 || b[0] != claimsVersion {
		return nil, errStoredClaims
	}
	b = b[1:]
	var lists [2][]string
	for i := range lists {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > maxClaimFilters+1 {
			return nil, errStoredClaims
		}
		if b = b[k:]; n == 0 {
			continue
		}
		lists[i] = make([]string, n-1)
		for j := range lists[i] {
			size, k := binary.Uvarint(b)
			if k <= 0 || size > uint64(len(b)-k) {
				return nil, errStoredClaims
			}
			lists[i][j] = string(b[k : k+int(size)])
			b = b[k+int(size):]
		}
	}
	if len(b) > 0 {
		return nil, errStoredClaims
	}
	c, err := NewClaims(lists[0], lists[1])
	if err != nil {
		return nil, err // and no *Claims that is nil
	}
	return c, nil
}
