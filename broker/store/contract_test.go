package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hashplus/broker"
)

// subject is an implementation under the contract of broker.Store.
type subject struct {
	name string
	// open returns an empty store.
	open func(t *testing.T) broker.Store
	// reopen returns a store with what s holds, after s has been closed.
	reopen func(t *testing.T, s broker.Store) broker.Store
	// fail makes everything fail from now on.
	fail func(s broker.Store, err error)
}

func subjects() []subject {
	disk := func(o Options) subject {
		return subject{
			name: o.Sync.String(),
			open: func(t *testing.T) broker.Store { return openDisk(t, filepath.Join(t.TempDir(), "data"), o) },
			reopen: func(t *testing.T, s broker.Store) broker.Store {
				return openDisk(t, s.(*Disk).dir, o)
			},
			fail: func(s broker.Store, err error) { _ = s.(*Disk).guard.poison(err) },
		}
	}
	return []subject{
		{
			name:   "memory",
			open:   func(*testing.T) broker.Store { return NewMemory() },
			reopen: func(_ *testing.T, s broker.Store) broker.Store { return s.(*Memory).Reopen() },
			fail:   func(s broker.Store, err error) { s.(*Memory).Fail(err) },
		},
		disk(Options{Sync: SyncAlways}),
		disk(Options{Sync: SyncEvery(10_000_000)}),
		disk(Options{Sync: SyncNever}),
	}
}

func openDisk(t *testing.T, dir string, o Options) *Disk {
	t.Helper()
	o.Logger = quiet
	d, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// contract runs f with an empty store of each kind.
func contract(t *testing.T, f func(t *testing.T, x subject, s broker.Store)) {
	for _, x := range subjects() {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			f(t, x, x.open(t))
		})
	}
}

// batch makes a batch of operations: "key=value" sets, "-key" deletes,
// "-from-to" deletes a range.
func batch(ops ...string) *broker.Batch {
	b := &broker.Batch{}
	for _, op := range ops {
		if rest, ok := strings.CutPrefix(op, "-"); ok {
			if from, to, ok := strings.Cut(rest, "-"); ok {
				b.DeleteRange([]byte(from), []byte(to))
			} else {
				b.Delete([]byte(rest))
			}
			continue
		}
		k, v, _ := strings.Cut(op, "=")
		b.Set([]byte(k), []byte(v))
	}
	return b
}

func commit(t *testing.T, s broker.Store, ops ...string) {
	t.Helper()
	if err := applyAndWait(s, batch(ops...)); err != nil {
		t.Fatalf("%q: %v", ops, err)
	}
}

// list is "key=value" of what Scan finds.
func list(t *testing.T, s broker.Store, from, to []byte) (found []string) {
	t.Helper()
	if err := s.Scan(from, to, func(k, v []byte) bool {
		found = append(found, string(k)+"="+string(v))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func expect(t *testing.T, s broker.Store, want ...string) {
	t.Helper()
	if got := list(t, s, nil, nil); !slices.Equal(got, want) {
		t.Fatalf("it holds %q, want %q", got, want)
	}
}

func TestContract_OperationsTakeEffectInOrderAndAtOnce(t *testing.T) {
	contract(t, func(t *testing.T, _ subject, s broker.Store) {
		wait, err := s.Apply(batch("b=1", "a=1", "b=2", "c=1", "-c", "d=1", "d2=1", "e=1", "-d-e", "d1=after", "f="))
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"a=1", "b=2", "d1=after", "e=1", "f="}
		expect(t, s, want...) // before wait
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		expect(t, s, want...)
		commit(t, s, "-nothing", "-a-b", "-z-a", "-f-f") // ranges may be empty
		expect(t, s, "b=2", "d1=after", "e=1", "f=")
		commit(t, s)
		if v, ok, err := s.Get([]byte("b")); string(v) != "2" || !ok || err != nil {
			t.Errorf("%q, %v, %v", v, ok, err)
		}
		if v, ok, err := s.Get([]byte("f")); len(v) != 0 || !ok || err != nil {
			t.Errorf("%q, %v, %v", v, ok, err)
		}
		if v, ok, err := s.Get([]byte("a")); v != nil || ok || err != nil {
			t.Errorf("%q, %v, %v", v, ok, err)
		}
	})
}

func TestContract_WhatGetReturnsAndWhatApplyWasGivenBelongToTheCaller(t *testing.T) {
	contract(t, func(t *testing.T, _ subject, s broker.Store) {
		key, value := []byte("key"), []byte("value")
		b := &broker.Batch{}
		b.Set(key, value)
		copy(key, "xxx")
		copy(value, "xxxxx")
		if err := applyAndWait(s, b); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		b.Set([]byte("zzz"), []byte("zzzzz")) // over the memory of the first
		v, _, err := s.Get([]byte("key"))
		if err != nil {
			t.Fatal(err)
		}
		copy(v, "yyyyy")
		expect(t, s, "key=value")
	})
}

func TestContract_ScanKeepsToItsBoundsAndEndsWhenTold(t *testing.T) {
	contract(t, func(t *testing.T, _ subject, s broker.Store) {
		commit(t, s, "a=", "a\x00=", "b=", "b\xff=", "c=", "\xff=")
		for _, c := range []struct {
			from, to []byte
			want     string
		}{
			{nil, nil, "a a\x00 b b\xff c \xff"},
			{[]byte("a"), []byte("b"), "a a\x00"},
			{[]byte("a\x00"), []byte("c"), "a\x00 b b\xff"},
			{[]byte("b\x00"), nil, "b\xff c \xff"},
			{nil, []byte("a"), ""},
			{nil, []byte{}, ""},
			{[]byte("b"), []byte("b"), ""},
			{[]byte("c"), []byte("a"), ""},
		} {
			var keys []string
			for _, kv := range list(t, s, c.from, c.to) {
				keys = append(keys, strings.TrimSuffix(kv, "="))
			}
			if got := strings.Join(keys, " "); got != c.want {
				t.Errorf("[%q, %q): %q, want %q", c.from, c.to, got, c.want)
			}
		}
		n := 0
		if err := s.Scan(nil, nil, func(_, _ []byte) bool { n++; return n < 3 }); err != nil || n != 3 {
			t.Errorf("%d keys, %v", n, err)
		}
	})
}

func TestContract_ScanSeesOneMoment(t *testing.T) {
	contract(t, func(t *testing.T, _ subject, s broker.Store) {
		commit(t, s, "a=1", "b=1", "c=1", "d=1")
		var seen []string
		err := s.Scan(nil, nil, func(k, v []byte) bool {
			if len(seen) == 0 { // from inside, and from outside
				commit(t, s, "-b", "c=2", "cc=2", "-d-e")
				expect(t, s, "a=1", "c=2", "cc=2")
			}
			seen = append(seen, string(k)+"="+string(v))
			return true
		})
		if want := []string{"a=1", "b=1", "c=1", "d=1"}; err != nil || !slices.Equal(seen, want) {
			t.Errorf("%q, %v, want %q", seen, err, want)
		}
	})
}

// A transfer between two accounts is never seen half.
func TestContract_BatchesAreAtomicForConcurrentReaders(t *testing.T) {
	contract(t, func(t *testing.T, _ subject, s broker.Store) {
		commit(t, s, "a=100", "b=100")
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 3 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					sum := 0
					for _, kv := range list(t, s, []byte("a"), []byte("c")) {
						var n int
						_, _ = fmt.Sscanf(kv[2:], "%d", &n) // 0 is found wrong
						sum += n
					}
					if _, ok, err := s.Get([]byte("a")); sum != 200 || !ok || err != nil {
						t.Errorf("the sum is %d; %v, %v", sum, ok, err)
						return
					}
				}
			})
		}
		var waits []func() error
		for i := range 300 {
			wait, err := s.Apply(batch(fmt.Sprintf("a=%d", 100-i), fmt.Sprintf("b=%d", 100+i)))
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, wait)
		}
		var waiters sync.WaitGroup
		for _, wait := range waits { // on any goroutine, in any order
			waiters.Go(func() {
				if err := wait(); err != nil {
					t.Error(err)
				}
			})
		}
		waiters.Wait()
		close(stop)
		readers.Wait()
	})
}

func TestContract_SurvivesCloseAndReopen(t *testing.T) {
	contract(t, func(t *testing.T, x subject, s broker.Store) {
		for i := range 3 {
			commit(t, s, fmt.Sprintf("k%d=%d", i, i), "n=x", "-n")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("the second Close: %v", err)
			}
			if _, err := s.Apply(batch("x=1")); err == nil {
				t.Error("a closed store takes a batch")
			}
			if _, _, err := s.Get([]byte("k0")); err == nil {
				t.Error("a closed store answers")
			}
			s = x.reopen(t, s)
		}
		expect(t, s, "k0=0", "k1=1", "k2=2")
	})
}

func TestContract_PoisonedStoreFailsWithTheFirstError(t *testing.T) {
	contract(t, func(t *testing.T, x subject, s broker.Store) {
		commit(t, s, "a=1")
		wait, err := s.Apply(batch("b=1"))
		if err != nil {
			t.Fatal(err)
		}
		first := errors.New("the first error")
		x.fail(s, first)
		x.fail(s, errors.New("the second error"))
		for range 2 {
			if _, err := s.Apply(batch("c=1")); !errors.Is(err, first) {
				t.Errorf("Apply: %v", err)
			}
			if _, _, err := s.Get([]byte("a")); !errors.Is(err, first) {
				t.Errorf("Get: %v", err)
			}
			if err := s.Scan(nil, nil, func(_, _ []byte) bool { return true }); !errors.Is(err, first) {
				t.Errorf("Scan: %v", err)
			}
			if err := s.Checkpoint(filepath.Join(t.TempDir(), "copy")); !errors.Is(err, first) {
				t.Errorf("Checkpoint: %v", err)
			}
		}
		if err := wait(); !errors.Is(err, first) {
			t.Errorf("wait: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		s = x.reopen(t, s)
		got := list(t, s, nil, nil)
		if !slices.Equal(got, []string{"a=1"}) && !slices.Equal(got, []string{"a=1", "b=1"}) {
			t.Errorf("it holds %q", got)
		}
	})
}

func TestContract_CheckpointIsACopyOfOneMoment(t *testing.T) {
	contract(t, func(t *testing.T, _ subject, s broker.Store) {
		commit(t, s, "a=1", "b=1")
		if _, err := s.Apply(batch("c=1")); err != nil { // a copy holds what is visible
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "copy")
		if err := s.Checkpoint(dir); err != nil {
			t.Fatal(err)
		}
		commit(t, s, "a=2", "d=1")
		if err := s.Checkpoint(dir); err == nil {
			t.Error("a directory that exists was overwritten")
		}
		expect(t, openDisk(t, dir, Options{}), "a=1", "b=1", "c=1")
		expect(t, s, "a=2", "b=1", "c=1", "d=1")
	})
}

func TestContract_FreeIsANumber(t *testing.T) {
	contract(t, func(t *testing.T, _ subject, s broker.Store) {
		if n, err := s.Free(); n == 0 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// What the store holds is what a map would, after any operations.
func TestContract_AgreesWithAMap(t *testing.T) {
	contract(t, func(t *testing.T, x subject, s broker.Store) {
		rnd := rand.New(rand.NewPCG(1, 2))
		model := map[string]string{}
		key := func() string { return fmt.Sprintf("%02x", rnd.IntN(64)) }
		for round := range 150 {
			b := &broker.Batch{}
			for range 1 + rnd.IntN(8) {
				switch k := key(); rnd.IntN(8) {
				case 0, 1:
					b.Delete([]byte(k))
					delete(model, k)
				case 2:
					to := key()
					b.DeleteRange([]byte(k), []byte(to))
					for m := range model {
						if k <= m && m < to {
							delete(model, m)
						}
					}
				default:
					v := string(bytes.Repeat([]byte{byte('a' + rnd.IntN(26))}, rnd.IntN(2000)))
					b.Set([]byte(k), []byte(v))
					model[k] = v
				}
			}
			if err := applyAndWait(s, b); err != nil {
				t.Fatal(err)
			}
			if round%40 == 39 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = x.reopen(t, s)
			}
			if round%10 != 9 {
				continue
			}
			var want []string
			for k, v := range model {
				want = append(want, k+"="+v)
			}
			slices.Sort(want)
			expect(t, s, want...)
			for k, v := range model {
				if got, ok, err := s.Get([]byte(k)); string(got) != v || !ok || err != nil {
					t.Fatalf("%s: %d bytes, %v, %v", k, len(got), ok, err)
				}
			}
		}
	})
}
