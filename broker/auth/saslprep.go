package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/bidi"
	"golang.org/x/text/unicode/norm"
)

// Prepare brings a password into the form that SCRAM hashes (SASLprep, RFC
// 4013): ASCII stays as it is. Unlike there, characters that Unicode 3.2 did
// not have are let through. The error names the first character that is not
// allowed, without the rest.
func Prepare(password string) (string, error) {
	if !utf8.ValidString(password) {
		return "", errors.New("the password is not UTF-8")
	}
	s := norm.NFKC.String(strings.Map(func(r rune) rune {
		switch {
		case unicode.Is(nonASCIISpace, r):
			return ' '
		case unicode.Is(mappedToNothing, r):
			return -1
		}
		return r
	}, password))
	if s == "" {
		return "", errors.New("the password is empty once it is prepared")
	}
	for _, r := range s {
		if prohibited(r) {
			return "", fmt.Errorf("the password has the character %U in it, which is not allowed", r)
		}
	}
	return s, checkDirection(s)
}

// prohibited is RFC 4013 section 2.3. Surrogates are not UTF-8.
func prohibited(r rune) bool {
	return unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Co, r) || unicode.Is(nonASCIISpace, r) ||
		r&0xfffe == 0xfffe || unicode.Is(prohibitedOthers, r)
}

// checkDirection is RFC 3454 section 6.
func checkDirection(s string) error {
	rightToLeft := func(r rune) bool {
		p, _ := bidi.LookupRune(r)
		return p.Class() == bidi.R || p.Class() == bidi.AL
	}
	if strings.IndexFunc(s, rightToLeft) < 0 {
		return nil
	}
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	leftToRight := func(r rune) bool { p, _ := bidi.LookupRune(r); return p.Class() == bidi.L }
	if !rightToLeft(first) || !rightToLeft(last) || strings.ContainsFunc(s, leftToRight) {
		return errors.New("the password mixes directions of writing in a way that is not allowed")
	}
	return nil
}

// Tables of RFC 3454.
var (
	nonASCIISpace = &unicode.RangeTable{R16: []unicode.Range16{ // C.1.2
		{Lo: 0xa0, Hi: 0xa0, Stride: 1}, {Lo: 0x1680, Hi: 0x1680, Stride: 1}, {Lo: 0x2000, Hi: 0x200b, Stride: 1},
		{Lo: 0x202f, Hi: 0x202f, Stride: 1}, {Lo: 0x205f, Hi: 0x205f, Stride: 1}, {Lo: 0x3000, Hi: 0x3000, Stride: 1},
	}, LatinOffset: 1}
	mappedToNothing = &unicode.RangeTable{R16: []unicode.Range16{ // B.1
		{Lo: 0xad, Hi: 0xad, Stride: 1}, {Lo: 0x34f, Hi: 0x34f, Stride: 1}, {Lo: 0x1806, Hi: 0x1806, Stride: 1},
		{Lo: 0x180b, Hi: 0x180d, Stride: 1}, {Lo: 0x200c, Hi: 0x200d, Stride: 1}, {Lo: 0x2060, Hi: 0x2060, Stride: 1},
		{Lo: 0xfe00, Hi: 0xfe0f, Stride: 1}, {Lo: 0xfeff, Hi: 0xfeff, Stride: 1},
	}, LatinOffset: 1}
	prohibitedOthers = &unicode.RangeTable{
		R16: []unicode.Range16{ // C.2.2, C.6, C.7, C.8, and C.4 as far as it is not at the end of a plane
			{Lo: 0x340, Hi: 0x341, Stride: 1}, {Lo: 0x6dd, Hi: 0x6dd, Stride: 1}, {Lo: 0x70f, Hi: 0x70f, Stride: 1},
			{Lo: 0x180e, Hi: 0x180e, Stride: 1}, {Lo: 0x200c, Hi: 0x200f, Stride: 1}, {Lo: 0x2028, Hi: 0x202e, Stride: 1},
			{Lo: 0x2060, Hi: 0x2063, Stride: 1}, {Lo: 0x206a, Hi: 0x206f, Stride: 1}, {Lo: 0x2ff0, Hi: 0x2ffb, Stride: 1},
			{Lo: 0xfdd0, Hi: 0xfdef, Stride: 1}, {Lo: 0xfeff, Hi: 0xfeff, Stride: 1}, {Lo: 0xfff9, Hi: 0xfffd, Stride: 1},
		},
		R32: []unicode.Range32{ // C.2.2, C.9
			{Lo: 0x1d173, Hi: 0x1d17a, Stride: 1}, {Lo: 0xe0001, Hi: 0xe0001, Stride: 1}, {Lo: 0xe0020, Hi: 0xe007f, Stride: 1},
		},
	}
)
