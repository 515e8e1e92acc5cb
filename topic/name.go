package topic

// CheckName reports what is wrong with a topic name, or nil: at least one
// byte [MQTT-4.7.3-1], no wildcard [MQTT-3.3.2-2] [MQTT-4.7.0-1], no U+0000
// [MQTT-4.7.3-2], at most MaxLength bytes [MQTT-4.7.3-3]. UTF-8 is the codec's
// to check. The error is an Error.
func CheckName[T ~string | ~[]byte](name T) error {
	if len(name) == 0 {
		return errEmpty
	}
	if len(name) > MaxLength {
		return errTooLong
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c > '+' { // the three that matter are all below: one compare for most bytes
			continue
		}
		switch c {
		case 0:
			return errNull
		case '+', '#':
			return errWildcard
		}
	}
	return nil
}
