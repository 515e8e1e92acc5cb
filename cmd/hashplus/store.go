package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"hashplus/broker"
	"hashplus/broker/store"
	"hashplus/broker/store/contents"
)

// storeCommand looks into the directory of serve --data.
type storeCommand struct {
	Check   storeCheckCommand   `cmd:"" help:"Read everything and say what is damaged or missing. No broker may be running."`
	Salvage storeSalvageCommand `cmd:"" help:"Copy what can be read of a damaged directory to a new one. No broker may be running."`
	Export  storeExportCommand  `cmd:"" help:"Print sessions, subscriptions, messages and wills, a JSON object on each line. No broker may be running."`
	Stats   storeStatsCommand   `cmd:"" help:"Count what is stored, and what it takes of the disk."`
	Backup  storeBackupCommand  `cmd:"" help:"Make a consistent copy, also while a broker serves."`
}

// dataFlag names the directory.
type dataFlag struct {
	Data string `required:"" type:"path" env:"HASHPLUS_DATA" placeholder:"DIR" help:"The directory of serve --data."`
}

// damagedError is damage that a command was to look for, and found.
type damagedError struct{ text string }

func (e damagedError) Error() string { return e.text }

// Is makes it broker.ErrStoreDamaged.
func (e damagedError) Is(target error) bool { return target == broker.ErrStoreDamaged }

// quietly are the options of the commands: what matters comes back as an error.
func quietly() store.Options {
	return store.Options{Logger: slog.New(slog.DiscardHandler), MustExist: true}
}

// interruptible runs f, and does not wait for its end when a signal comes.
func interruptible(ctx context.Context, f func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return errInterrupted
	}
}

// explainInUse says what can be done while a broker runs.
func explainInUse(dir string, err error) error {
	if errors.Is(err, store.ErrInUse) {
		return fmt.Errorf("%w; stop the broker, or look into a copy: hashplus store backup --data %s DST", err, dir)
	}
	return advise(dir, err)
}

// withStore runs f with the store in dir, which is opened for reading. If that
// takes long it says how far it is.
func withStore(env *environment, dir string, f func(*reading) error) error {
	o := quietly()
	o.ReadOnly = true
	return interruptible(env.ctx, func() error {
		if err := unserved(dir); err != nil {
			return explainInUse(dir, err)
		}
		d, err := store.Open(dir, o)
		if err != nil {
			return explainInUse(dir, err)
		}
		r := &reading{Disk: d}
		defer r.report(env.stderr)()
		return errors.Join(advise(dir, f(r)), d.Close())
	})
}

// reading is a store that counts what is read of it.
type reading struct {
	*store.Disk
	records atomic.Int64
}

// Scan implements broker.Store.
func (r *reading) Scan(from, to []byte, f func(key, value []byte) bool) error {
	return r.Disk.Scan(from, to, func(key, value []byte) bool {
		r.records.Add(1)
		return f(key, value)
	})
}

// reportEvery is the interval of the lines about how far a command is.
const reportEvery = 5 * time.Second

// report prints how far it is until stop is called.
func (r *reading) report(w io.Writer) (stop func()) {
	began, quit := time.Now(), make(chan struct{})
	go func() {
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(w, "%d records read in %s\n", r.records.Load(), time.Since(began).Round(time.Second))
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit) }
}

// tally collects findings: thousands that say the same are one line.
type tally struct {
	order []contents.Finding // the first of each sort
	count map[[3]string]int  // by kind, client and what it is
}

func sortOf(f contents.Finding) [3]string { return [3]string{f.Kind(), f.Client, f.What} }

func (t *tally) add(f contents.Finding) {
	if t.count == nil {
		t.count = make(map[[3]string]int)
	}
	sort := sortOf(f)
	if t.count[sort]++; t.count[sort] == 1 {
		t.order = append(t.order, f)
	}
}

// print writes a line for each sort, which begins with what title says of it.
func (t *tally) print(w io.Writer, title func(contents.Finding) string) error {
	for _, f := range t.order {
		of := ""
		if f.Client != "" {
			of = fmt.Sprintf(" of client %q", f.Client)
		}
		text := fmt.Sprintf("record %q%s: %s", f.Key, of, f.What)
		if n := t.count[sortOf(f)]; n > 1 {
			text = fmt.Sprintf("%d %s%s: %s; the first is record %q", n, f.Kind(), of, f.What, f.Key)
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", title(f), text); err != nil {
			return err
		}
	}
	return nil
}

// plural is n of something.
func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

type storeCheckCommand struct{ dataFlag }

// Run prints what is wrong, and says so at the end.
func (c *storeCheckCommand) Run(env *environment) error {
	damages, err := checkFiles(env, store.CheckFiles, c.Data)
	if err != nil {
		return explainInUse(c.Data, err)
	}
	var found tally
	files := damages
	err = withStore(env, c.Data, func(r *reading) error {
		return contents.Check(r, func(f contents.Finding) {
			if found.add(f); !f.Idle {
				damages++
			}
		})
	})
	switch {
	case errors.Is(err, broker.ErrStoreDamaged):
		// What refers to a record that cannot be read only seems to lack it.
		found, damages = tally{}, files
		if damages == 0 {
			damages++
			fmt.Fprintln(env.stdout, "damaged:", err)
		}
	case err != nil && damages == 0:
		return err
	}
	if err := found.print(env.stdout, func(f contents.Finding) string {
		if f.Idle {
			return "not needed"
		}
		return "damaged"
	}); err != nil {
		return err
	}
	if damages > 0 {
		return damagedError{fmt.Sprintf("%s in %s; hashplus store salvage %s DST copies what can be read",
			plural(damages, "damage", "damages"), c.Data, c.Data)}
	}
	_, err = fmt.Fprintln(env.stdout, "no damage in", c.Data)
	return err
}

type storeSalvageCommand struct {
	Src string `arg:"" type:"path" help:"The damaged directory. It is not changed."`
	Dst string `arg:"" type:"path" help:"The new one, which must not exist. Until all is in it, it is called DST.incomplete, which must not exist either."`
}

// Run prints what was lost.
func (c *storeSalvageCommand) Run(env *environment) error {
	if err := mayMake(c.Dst, c.Src); err != nil {
		return err
	}
	unfinished := c.Dst + ".incomplete"
	if err := mayMake(unfinished, c.Src); err != nil {
		return fmt.Errorf("%w; if a salvage that was interrupted has left it, remove it", err)
	}
	if err := unserved(c.Src); err != nil {
		return explainInUse(c.Src, err)
	}
	losses, keys := 0, 0
	var mended tally
	if err := interruptible(env.ctx, func() (err error) {
		keys, err = store.Salvage(c.Src, unfinished, quietly(), func(what string) {
			losses++
			fmt.Fprintln(env.stdout, "lost:", what)
		}, func(what string) {
			fmt.Fprintln(env.stdout, "note:", what)
		})
		if err == nil {
			var removed int
			removed, err = mend(unfinished, mended.add)
			keys -= removed
		}
		if err != nil {
			err = explainInUse(c.Src, errors.Join(err, os.RemoveAll(unfinished)))
		}
		return err
	}); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(unfinished, c.Dst), mended.print(env.stdout, func(contents.Finding) string { return "lost" })); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s in %s\n", plural(keys, "record is", "records are"), c.Dst)
	if losses > 0 {
		return damagedError{fmt.Sprintf("%s of %s could not be read", plural(losses, "part", "parts"), c.Src)}
	}
	return nil
}

// mend removes from the copy what refers to what was lost, so that a broker
// starts on it.
func mend(dir string, lost func(contents.Finding)) (removed int, err error) {
	d, err := store.Open(dir, quietly())
	if err != nil {
		return 0, err
	}
	removed, err = contents.Mend(d, lost)
	return removed, errors.Join(err, d.Close())
}

// mayMake fails unless dst can be made as a copy of src: it does not exist, and is
// not within src.
func mayMake(dst, src string) error {
	_, err := os.Lstat(dst)
	if err == nil {
		return usagef("%s exists", dst)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for above := filepath.Dir(dst); ; above = filepath.Dir(above) {
		if same(above, src) {
			return usagef("%s is in %s, of which it is to be a copy", dst, src)
		}
		if above == filepath.Dir(above) {
			return nil
		}
	}
}

// same says whether both are one directory, by whatever names.
func same(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// unserved fails if a broker serves dir. Who opens it finds out by its lock, unless
// somebody has removed the file LOCK.
func unserved(dir string) error {
	if answers(dir) {
		return store.InUse(dir)
	}
	return nil
}

type storeExportCommand struct{ dataFlag }

// Run prints all of it.
func (c *storeExportCommand) Run(env *environment) error {
	out := bufio.NewWriterSize(env.stdout, 64<<10)
	return withStore(env, c.Data, func(r *reading) error {
		if err := contents.Export(r, out); err != nil {
			return err
		}
		return out.Flush()
	})
}

type storeStatsCommand struct {
	dataFlag
	JSON bool `name:"json" help:"Print one JSON object."`
}

// Run asks the broker, or looks itself.
func (c *storeStatsCommand) Run(env *environment) error {
	var s storeStats
	answer, err := askBroker(env.ctx, c.Data, http.MethodGet, "/stats", nil)
	switch {
	case err == nil:
		err = json.Unmarshal(answer, &s)
	case errors.Is(err, errNoBroker):
		err = withStore(env, c.Data, func(r *reading) (err error) {
			s, err = statsOf(r.Disk)
			return err
		})
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(env.stdout).Encode(s)
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "records\tbytes\t \n")
	for _, n := range s.Counts {
		fmt.Fprintf(w, "%d\t%d\t %s\n", n.Records, n.Bytes, n.Name)
	}
	for _, l := range s.Disk.Levels {
		fmt.Fprintf(w, "%d\t%d\t tables of level %d\n", l.Tables, l.Bytes, l.Number)
	}
	fmt.Fprintf(w, "\t%d\t log\n\t%d\t logs kept to be used again\n\t%d\t all files\n\t%d\t free\n", s.Disk.Log, s.Disk.Spare, s.Disk.Disk, s.Disk.Free)
	return w.Flush()
}

type storeBackupCommand struct {
	dataFlag
	Dst string `arg:"" type:"path" help:"The directory of the copy, which must not exist."`
}

// Run asks the broker, or copies itself.
func (c *storeBackupCommand) Run(env *environment) error {
	dst, err := filepath.Abs(c.Dst)
	if err != nil {
		return err
	}
	if err := mayMake(dst, c.Data); err != nil {
		return err
	}
	_, err = askBroker(env.ctx, c.Data, http.MethodPost, "/backup", url.Values{"to": {dst}})
	if errors.Is(err, errNoBroker) {
		err = interruptible(env.ctx, func() error { return store.Copy(c.Data, dst, quietly()) })
		if errors.Is(err, store.ErrInUse) {
			return fmt.Errorf("%w, which takes no commands", err)
		}
	}
	if err != nil {
		return advise(c.Data, err)
	}
	damages, err := checkFiles(env, store.CheckCopy, dst)
	if err == nil && damages > 0 {
		err = damagedError{fmt.Sprintf("%s in the copy, as in %s; hashplus store salvage %s DST copies what can be read",
			plural(damages, "damage", "damages"), c.Data, dst)}
	}
	return err
}

// checkFiles prints what is damaged in the files of dir, and counts it.
func checkFiles(env *environment, check func(dir string, o store.Options, found, noted func(string)) error, dir string) (damages int, err error) {
	if err := unserved(dir); err != nil {
		return 0, err
	}
	err = interruptible(env.ctx, func() error {
		return check(dir, quietly(), func(what string) {
			damages++
			fmt.Fprintln(env.stdout, "damaged:", what)
		}, func(what string) {
			fmt.Fprintln(env.stdout, "note:", what)
		})
	})
	return damages, err
}
