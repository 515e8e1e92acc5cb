package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hashplus/broker"
)

func TestLogs_ListThatCannotBeReadIsDamaged(t *testing.T) {
	l := logList{gone: 7, there: []int{9, 12}, durable: map[int]int64{9: 1 << 40, 12: 0}}
	text := l.encode()
	if got, ok := decodeLogs(text); !ok || fmt.Sprint(got) != fmt.Sprint(l) {
		t.Errorf("%v, %v", got, ok)
	}
	for at := range len(text) {
		hurt := []byte(text)
		hurt[at] ^= 1
		if _, ok := decodeLogs(string(hurt)); ok {
			t.Errorf("%q is a list", hurt)
		}
		if _, ok := decodeLogs(text[:at]); ok {
			t.Errorf("%q is a list", text[:at])
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, logsFile), text[1:])
	if _, known, err := readLogs(small.fs(), dir); known || !errors.Is(err, broker.ErrStoreDamaged) {
		t.Errorf("%v, %v", known, err)
	}
}

// Stores that were made without a list open, and have one from then on. One that is
// older than the store is right, too.
func TestLogs_NoneAndAnOlderOneAreTaken(t *testing.T) {
	for _, older := range []bool{false, true} {
		dir := t.TempDir()
		h := &history{}
		var early []byte
		for range 3 {
			d := openDisk(t, dir, small)
			if err := h.run(d, h.applied+60); err != nil {
				t.Fatal(err)
			}
			closeIt(t, d)
			name := filepath.Join(dir, logsFile)
			text, err := os.ReadFile(name)
			if err != nil || !strings.Contains(string(text), "log ") {
				t.Fatalf("%q, %v", text, err)
			}
			if early == nil {
				early = text
			}
			if older {
				write(t, name, string(early))
			} else if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		d := openDisk(t, dir, small)
		h.keeps(t, d)
		closeIt(t, d)
	}
}
