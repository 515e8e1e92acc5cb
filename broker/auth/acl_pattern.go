package auth

import (
	"strings"

	"hashplus/broker"
)

// pattern is a rule whose filter names the client: `%c` stands for its client
// identifier and `%u` for its username.
//
// The values are compared with the levels of a topic; they are never put into a
// filter. So one with `/`, `+` or `#` in it equals no level, and a client
// cannot widen a rule by its name. An empty value equals nothing, and one at
// the beginning does not reach names that begin with `$`.
type pattern struct {
	rights rights
	levels []patternLevel
}

// patternLevel is `+`, `#` or a text in parts.
type patternLevel struct {
	wildcard byte // '+', '#' or 0
	parts    []patternPart
}

// patternPart is a literal or a value.
type patternPart struct {
	literal string
	value   byte // 'c', 'u' or 0
}

// newPattern takes filter, which is valid, apart.
func newPattern(filter string, r rights) pattern {
	if filter == "+/#" {
		filter = "#" // as in ruleNode.add
	}
	p := pattern{rights: r}
	for level := range strings.SplitSeq(filter, "/") {
		if level == "+" || level == "#" {
			p.levels = append(p.levels, patternLevel{wildcard: level[0]})
			continue
		}
		p.levels = append(p.levels, patternLevel{parts: splitParts(level)})
	}
	return p
}

func splitParts(level string) (parts []patternPart) {
	literal := 0 // where it begins
	end := func(at int) {
		if literal < at {
			parts = append(parts, patternPart{literal: level[literal:at]})
		}
	}
	for i := 0; i+1 < len(level); i++ {
		if level[i] != '%' || level[i+1] != 'c' && level[i+1] != 'u' {
			continue
		}
		end(i)
		parts = append(parts, patternPart{value: level[i+1]})
		i++
		literal = i + 1
	}
	end(len(level))
	return parts
}

// covers reports whether p, for the client id, matches every name that filter
// matches.
func (p *pattern) covers(id *broker.Identity, filter string) bool {
	rest, more := filter, true
	for i := range p.levels {
		l := &p.levels[i]
		if i == 0 && filter[0] == '$' && !l.literalStart() {
			return false
		}
		if l.wildcard == '#' {
			return true
		}
		if !more {
			return false
		}
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#":
			return false
		case l.wildcard == '+':
		case level == "+":
			return false
		case !l.is(id, level):
			return false
		}
	}
	return !more
}

func (l *patternLevel) literalStart() bool {
	return len(l.parts) > 0 && l.parts[0].value == 0
}

// is reports whether the level of a topic is l's text.
func (l *patternLevel) is(id *broker.Identity, level string) bool {
	for i := range l.parts {
		p := &l.parts[i]
		text := p.literal
		switch p.value {
		case 'c':
			text = id.ClientID
		case 'u':
			text = id.Username
		}
		if text == "" || !strings.HasPrefix(level, text) {
			return false
		}
		level = level[len(text):]
	}
	return level == ""
}
