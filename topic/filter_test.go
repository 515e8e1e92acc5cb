package topic

import (
	"strings"
	"testing"
)

// row says whether a filter matches a name.
type row struct {
	filter, name string
	want         bool
}

// all matchers must agree with the row: the definition and both structures.
func matchRows(t *testing.T, rows ...row) {
	t.Helper()
	for _, r := range rows {
		x := NewIndex[int](nil)
		x.Add(r.filter)
		tree := NewRetained[int]()
		tree.Swap([]byte(r.name), new(int))
		walked := 0
		tree.Walk(r.filter).Next(1e9, func(string, *int) bool { walked++; return true })
		for how, got := range map[string]bool{
			"Matches": Matches(r.filter, r.name),
			"Index":   len(matching(x, []byte(r.name))) == 1,
			"Walk":    walked == 1,
		} {
			if got != r.want {
				t.Errorf("%s: filter %.40q, name %.40q: %v", how, r.filter, r.name, got)
			}
		}
	}
}

func TestMatch_MultiLevelWildcardHasParentAndAllBelow(t *testing.T) { // [MQTT-4.7.1-1]
	matchRows(t,
		row{"sport/tennis/player1/#", "sport/tennis/player1", true},
		row{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		row{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		row{"sport/tennis/player1/#", "sport/tennis/player10", false},
		row{"sport/#", "sport", true}, row{"sport/#", "sports", false},
		row{"#", "a", true}, row{"#", "/", true}, row{"#", "a/b/c", true},
		row{"/#", "/", true}, row{"/#", "a", false}, row{"/#", "/a", true},
		row{"a//#", "a/", true}, row{"a//#", "a", false}, row{"a//#", "a//b", true})
}

func TestMatch_SingleLevelWildcardIsOneLevel(t *testing.T) { // [MQTT-4.7.1-2]
	matchRows(t,
		row{"sport/tennis/+", "sport/tennis/player1", true},
		row{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		row{"sport/+", "sport", false}, row{"sport/+", "sport/", true},
		row{"+", "a", true}, row{"+", "/a", false}, row{"+/+", "/finance", true},
		row{"/+", "/finance", true}, row{"+/", "/", true},
		row{"a/+/c", "a/b/c", true}, row{"a/+/c", "a//c", true}, row{"a/+/c", "a/b/d", false},
		row{"+/#", "a", true}, row{"+/#", "a/b", true}, row{"+/+/#", "a", false}, row{"+/+/#", "a/", true},
		row{"+/b/#", "a/b", true}, row{"+/b/#", "a/c", false})
}

func TestMatch_FirstWildcardSkipsDollarNames(t *testing.T) { // [MQTT-4.7.2-1]
	matchRows(t,
		row{"#", "$SYS", false}, row{"#", "$SYS/a", false}, row{"+", "$SYS", false},
		row{"+/monitor/Clients", "$SYS/monitor/Clients", false}, row{"+/#", "$SYS/a", false}, row{"+/#", "$", false},
		row{"$SYS/#", "$SYS/", true}, row{"$SYS/#", "$SYS", true},
		row{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		row{"a/+", "a/$b", true}, row{"a/#", "a/$b/c", true}, row{"+/$b", "a/$b", true}, row{"/#", "/$SYS", true})
}

func TestMatch_NothingIsNormalized(t *testing.T) { // [MQTT-4.7.3-4]
	matchRows(t,
		row{"ACCOUNTS", "Accounts", false}, row{"a", "/a", false}, row{"a/", "a", false}, row{"a//b", "a/b", false},
		row{" a", "a", false}, row{"\u00e9", "e\u0301", false}, row{"\ufeffa", "a", false}, row{"\ufeffa", "\ufeffa", true},
		row{"a/./b", "a/b", false}, row{"a%2fb", "a/b", false}, row{"a/\u00e9/+", "a/\u00e9/b", true})
}

func TestMatch_LiteralFilters(t *testing.T) {
	matchRows(t,
		row{"a/b", "a/b", true}, row{"a/b", "a/b/c", false}, row{"a/b", "a", false}, row{"/", "/", true},
		row{"//", "/", false}, row{"$SYS/x", "$SYS/x", true})
}

func TestMatch_DeepestLegalNames(t *testing.T) {
	name := strings.Repeat("/", MaxLength)
	pluses := strings.Repeat("+/", MaxLength/2) // 32,768 levels, the last one empty
	matchRows(t,
		row{name, name, true}, row{"#", name, true}, row{name[:MaxLength-1] + "#", name, true},
		row{pluses + "#", name, true}, row{pluses + "+", name, false},
		row{pluses + "+", name[:MaxLength/2], true}, row{pluses, name[:MaxLength/2], true})
}
