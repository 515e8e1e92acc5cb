package topic

import "strings"

// sharePrefix begins the filter of a shared subscription.
const sharePrefix = "$share/"

// ParseShare splits `$share/{group}/{filter}`. shared tells whether s is such
// a filter at all; err says why it is not a valid one: the group is empty or
// has a wildcard [MQTT-4.8.2-1] [MQTT-4.8.2-2], the filter is empty or invalid.
// `$share` with no slash is an ordinary filter. The error is an Error; group
// and filter are parts of s, and empty unless the filter is a valid shared one.
func ParseShare(s string) (group, filter string, shared bool, err error) {
	rest, shared := strings.CutPrefix(s, sharePrefix)
	if !shared {
		return "", "", false, nil
	}
	if len(s) > MaxLength {
		return "", "", true, errTooLong
	}
	group, filter, _ = strings.Cut(rest, "/")
	switch {
	case group == "":
		err = errNoGroup
	case strings.IndexByte(group, 0) >= 0:
		err = errNull
	case strings.ContainsAny(group, "+#"):
		err = errGroup
	case filter == "":
		err = errNoFilter
	default:
		err = CheckFilter(filter)
	}
	if err != nil {
		return "", "", true, err
	}
	return group, filter, true, nil
}
