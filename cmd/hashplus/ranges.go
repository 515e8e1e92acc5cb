package main

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// span is what is allowed of a number.
type span struct{ lo, hi int64 }

// numberSpans are what is allowed of the keys of serve that are whole numbers, and
// sizeSpans of those that are sizes. What is no number is told the same as one that
// is not allowed.
var (
	numberSpans = map[string]span{ //nolint:gochecknoglobals // a table
		"max-keepalive":           {0, 65535},
		"receive-maximum":         {1, 65535},
		"topic-alias-maximum":     {0, 65535},
		"max-qos":                 {0, 2},
		"max-connections":         {0, math.MaxInt32},
		"max-sessions":            {1, 1 << 30},
		"max-inflight":            {1, 65535},
		"max-queued-messages":     {1, 1 << 30},
		"max-subscriptions":       {1, 1 << 24},
		"max-topic-levels":        {1, 65535},
		"max-topic-length":        {1, 65535},
		"max-user-properties":     {1, 1 << 20},
		"max-publish-rate":        {0, 1e9},
		"max-address-connections": {0, 1 << 30},
		"max-address-rate":        {0, 1 << 30},
		"max-retained-messages":   {1, 1 << 30},
		"ban-auth-failures":       {0, 1 << 30},
		"ban-connects":            {0, 1 << 30},
		"auth-http-concurrency":   {1, 64}, // the broker asks for no more clients at once
		"auth-http-cache-size":    {1, 1_000_000},
		"tls-handshake-rate":      {0, 1 << 20},
		"tls-workers":             {0, 1 << 20},
		"tls-handshakes":          {1, 1 << 20},
		"loops":                   {0, 64},
	}
	sizeSpans = map[string]span{ //nolint:gochecknoglobals // a table
		"ws-deflate-min-size": {0, math.MaxInt32},
		"max-packet-size":     {128, 268_435_460},
		"max-connect-size":    {128, 1 << 20},
		"max-queued-bytes":    {1024, 1 << 40},
		"write-queue-bytes":   {4096, 1 << 30},
		"max-publish-bytes":   {0, 1e9},
		"max-memory":          {0, 1 << 50},
		"max-retained-bytes":  {1024, 1 << 40},
		"min-free":            {leastMinFree, 1 << 50},
	}
)

// checkNumber holds a whole number to what is allowed of its key.
func checkNumber[N int | byte | uint16 | Seconds](fault func(key, format string, args ...any), key string, n N) {
	if s := numberSpans[key]; int64(n) < s.lo || int64(n) > s.hi {
		fault(key, "%d is not allowed; from %d to %d is", int64(n), s.lo, s.hi)
	}
}

// checkSize holds a size to what is allowed of its key.
func checkSize(fault func(key, format string, args ...any), key string, n Size) {
	if s := sizeSpans[key]; int64(n) < s.lo || int64(n) > s.hi {
		fault(key, "%s is not allowed; from %s to %s is", n, Size(s.lo), Size(s.hi))
	}
}

// ofServe reports whether a flag is one of serve: those of clients have names that
// are the same, and mean something else.
func ofServe(ctx *kong.DecodeContext) bool {
	return slices.Contains(ctx.Value.Tag.Envs, "HASHPLUS_"+strings.ToUpper(strings.ReplaceAll(ctx.Value.Name, "-", "_")))
}

// wholeNumber reads an integer flag, whose type holds lo to most. What can be read is
// held to the tables where all values are known, so that all faults are told at once.
func wholeNumber(lo, most int64) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("number", &text); err != nil {
			return err
		}
		text = strings.TrimSpace(text)
		allowed, known := numberSpans[ctx.Value.Name]
		if known = known && ofServe(ctx); !known {
			allowed = span{lo, most}
		}
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil && !known && most == math.MaxInt:
			return fmt.Errorf("%q is not a whole number", text)
		case err != nil:
			return fmt.Errorf("%q is not a whole number from %d to %d", text, allowed.lo, allowed.hi)
		case n < lo || n > most:
			return fmt.Errorf("%d is not allowed; from %d to %d is", n, allowed.lo, allowed.hi)
		case target.CanUint():
			target.SetUint(uint64(n))
		default:
			target.SetInt(n)
		}
		return nil
	}
}

// readText reads a flag of a type that reads itself from text. What is allowed of its
// key is said of what cannot be read, too.
func readText(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("value", &text); err != nil {
		return err
	}
	u, ok := target.Addr().Interface().(encoding.TextUnmarshaler)
	if !ok {
		return fmt.Errorf("%s is not read from text", target.Type())
	}
	err := u.UnmarshalText([]byte(text))
	if err == nil || !ofServe(ctx) {
		return err
	}
	if s, ok := sizeSpans[ctx.Value.Name]; ok {
		return fmt.Errorf("%w; from %s to %s is allowed", err, Size(s.lo), Size(s.hi))
	}
	if s, ok := numberSpans[ctx.Value.Name]; ok {
		return fmt.Errorf("%q is not a whole number of seconds from %d to %d, nor a duration such as 10s", text, s.lo, s.hi)
	}
	return err
}
