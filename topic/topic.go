// Package topic knows MQTT topic names and filters: what is valid, what
// matches, and the two shared structures that answer at speed: Index (which
// filters match this name) and Retained (which names match this filter).
//
// It imports nothing outside the standard library.
package topic

// MaxLength is the longest name or filter, in bytes [MQTT-4.7.3-3].
const MaxLength = 65535

// Error says which rule a name or a filter breaks. Every error of this package
// is one, so that whoever refuses the packet can name the clause.
type Error struct {
	Clause string // the normative statement, such as "MQTT-4.7.1-2"
	Detail string // what was found
}

func (e Error) Error() string { return e.Detail + " [" + e.Clause + "]" }

// The errors are made once: refusing a packet allocates nothing here.
var (
	errEmpty      error = Error{"MQTT-4.7.3-1", "empty topic"}
	errNull       error = Error{"MQTT-4.7.3-2", "U+0000 in a topic"}
	errTooLong    error = Error{"MQTT-4.7.3-3", "topic longer than 65,535 bytes"}
	errWildcard   error = Error{"MQTT-3.3.2-2", "wildcard in a topic name"}
	errMultiLevel error = Error{"MQTT-4.7.1-1", "# is not alone in the last level"}
	errOneLevel   error = Error{"MQTT-4.7.1-2", "+ does not fill its level"}
	errNoGroup    error = Error{"MQTT-4.8.2-1", "shared subscription without a share name"}
	errGroup      error = Error{"MQTT-4.8.2-2", "wildcard in a share name"}
	errNoFilter   error = Error{"MQTT-4.8.2-2", "shared subscription without a topic filter"}
)

// Levels counts the levels of a name or filter.
func Levels[T ~string | ~[]byte](s T) int {
	n := 1
	for i := 0; i < len(s); i++ {
		if s[i] == '/' {
			n++
		}
	}
	return n
}

// isSystem tells whether a name is out of reach of a wildcard at the first
// level [MQTT-4.7.2-1].
func isSystem[T ~string | ~[]byte](name T) bool { return len(name) > 0 && name[0] == '$' }
