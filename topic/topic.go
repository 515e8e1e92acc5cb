// Package topic knows MQTT topic names and filters: what is valid, what
// matches, and the two shared structures that answer at speed: Index (which
// filters match this name) and Retained (which names match this filter).
//
// It imports nothing outside the standard library.
package topic

// CheckName reports what is wrong with a topic name, or nil: at least one
// byte, no wildcard [MQTT-3.3.2-2], no U+0000 [MQTT-4.7.3-2], at most 65,535
// bytes [MQTT-4.7.3-3]. UTF-8 is the codec's to check.
func CheckName[T ~string | ~[]byte](name T) error

// CheckFilter reports what is wrong with a topic filter, or nil: the rules of
// CheckName except that `+` and `#` may each fill a whole level, `#` only the
// last [MQTT-4.7.1-1] [MQTT-4.7.1-2]. `$share/` has no meaning here.
func CheckFilter[T ~string | ~[]byte](filter T) error

// Levels counts the levels of a name or filter.
func Levels[T ~string | ~[]byte](s T) int

// Matches is the definition of matching, written to be read, not to be fast:
// wildcards at the first level match no name that begins with `$`
// [MQTT-4.7.2-1]. Everything else here is held against it.
func Matches(filter, name string) bool

// ParseShare splits `$share/{group}/{filter}`. shared tells whether s is such
// a filter at all; err says why it is not a valid one: the group is empty or
// has a wildcard [MQTT-4.8.2-1] [MQTT-4.8.2-2], the filter is empty or invalid.
func ParseShare(s string) (group, filter string, shared bool, err error)

// Node is one filter of an Index.
type Node[V any] struct {
	Filter string
	Value  V
}

// Index holds filters, and finds those that match a name.
type Index[V any] struct{}

// NewIndex returns an empty index. init, if not nil, is called for the value
// of each new node before any Match can return it.
func NewIndex[V any](init func(*V)) *Index[V]

// Add returns the node of filter, made if there is none, and counts one more
// use of it. filter must be valid. Any goroutine; Add and Remove exclude each
// other, Match does not wait for them.
func (x *Index[V]) Add(filter string) *Node[V]

// Remove takes back one Add; the last one takes the node out of the index. A
// Match that began before may still return it.
func (x *Index[V]) Remove(n *Node[V])

// Match appends the nodes whose filters match name to dst, each once, and
// returns it. It sees every node whose Add returned before Match began and
// whose last Remove had not begun. It writes no memory but dst, takes no lock
// and keeps neither argument. name must be valid. Any goroutine.
func (x *Index[V]) Match(dst []*Node[V], name []byte) []*Node[V]

// Len is the number of nodes.
func (x *Index[V]) Len() int

// Retained maps names to values, and walks those that match a filter.
type Retained[V any] struct{}

// NewRetained returns an empty tree.
func NewRetained[V any]() *Retained[V]

// Get returns the value of name, or nil. Any goroutine, without a lock that it contends on.
func (r *Retained[V]) Get(name []byte) *V

// Swap sets the value of name, or takes name out if v is nil, and returns what
// was there. Swaps exclude each other; readers do not wait for them. name is
// copied. Any goroutine.
func (r *Retained[V]) Swap(name []byte, v *V) (old *V)

// Len is the number of names.
func (r *Retained[V]) Len() int

// Walk starts a walk over the names that match filter, which must be valid.
func (r *Retained[V]) Walk(filter string) *Cursor[V]

// Cursor is a walk in progress, owned by one goroutine at a time.
type Cursor[V any] struct{}

// Next goes on with the walk until yield returns false, the walk is over
// (done), or about budget steps were made, a step being a level looked at,
// matching or not. A name that stays in the tree during the whole walk is
// yielded exactly once, one that comes or goes meanwhile at most once; the
// value is the current one. Order is unspecified. The tree may change between
// calls of Next and during them.
func (c *Cursor[V]) Next(budget int, yield func(name string, v *V) bool) (done bool)
