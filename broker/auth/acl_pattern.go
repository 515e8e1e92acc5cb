package auth

import (
	"strings"

	"hashplus/broker"
)

// patternLevel is a level of a pattern that names the client: `%c` stands for
// its client identifier and `%u` for its username.
//
// The values are compared with the levels of a topic; they are never put into a
// filter. So one with `/`, `+` or `#` in it equals no level, and a client
// cannot widen a rule by its name. An empty value equals nothing, and one at
// the beginning does not reach names that begin with `$`.
type patternLevel []patternPart

// patternPart is a literal or a value.
type patternPart struct {
	literal string
	value   byte // 'c', 'u' or 0
}

// namesClient reports whether a level of a pattern has a value in it.
func namesClient(level string) bool {
	return strings.Contains(level, "%c") || strings.Contains(level, "%u")
}

// newPatternLevel takes a level apart.
func newPatternLevel(level string) (parts patternLevel) {
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

func (l patternLevel) beginsLiterally() bool { return l[0].value == 0 }

// is reports whether the level of a topic is l's text for id. The level `+` of a
// filter is not, whatever the client calls itself.
func (l patternLevel) is(id *broker.Identity, level string) bool {
	if level == "+" {
		return false
	}
	for i := range l {
		p := &l[i]
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
