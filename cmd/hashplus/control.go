package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"hashplus/broker"
	"hashplus/broker/store"
	"hashplus/broker/store/contents"
)

// keeper has the store of a running broker, and does what hashplus store asks
// for over a Unix socket in its directory.
type keeper struct {
	// Immutable.
	dir   string
	sync  store.Sync
	log   *slog.Logger
	stuck func(error) // the process must end

	disk atomic.Pointer[store.Disk] // the latest that was opened
}

// open is broker.Options.OpenStore.
func (k *keeper) open() (broker.Store, error) {
	// Once it was open it must be there: a disk that is gone leaves an empty
	// directory behind, which is not to become a store.
	again := k.disk.Load() != nil
	if !again {
		if err := unserved(k.dir); err != nil {
			return nil, err
		}
	}
	d, err := store.Open(k.dir, store.Options{Sync: k.sync, Logger: k.log, MustExist: again})
	if errors.Is(err, store.ErrStuck) {
		k.stuck(err)
	}
	if err != nil {
		return nil, advise(k.dir, err)
	}
	k.disk.Store(d)
	return d, nil
}

// listen takes commands until stop is called. A socket that cannot be made is no
// reason not to serve.
func (k *keeper) listen() (stop func()) {
	l, err := listenControl(k.dir)
	if err != nil {
		k.log.Warn("hashplus store cannot reach this broker", "cause", err)
		return func() {}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /backup", k.backup)
	mux.HandleFunc("GET /stats", k.stats)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(k.log.Handler(), slog.LevelDebug)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Serve(l) // it ends with stop
	}()
	return func() {
		_ = s.Close() // nobody can be told
		<-ended
		_ = os.Remove(filepath.Join(k.dir, store.ControlSocket)) // the next start removes it, too
	}
}

func (k *keeper) backup(w http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	if !filepath.IsAbs(to) {
		http.Error(w, "the directory is not absolute", http.StatusBadRequest)
		return
	}
	if err := k.disk.Load().Checkpoint(to); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	k.log.Info("backed up", "to", to)
}

func (k *keeper) stats(w http.ResponseWriter, _ *http.Request) {
	s, err := statsOf(k.disk.Load())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(s) // who asked has gone
}

// storeStats is what hashplus store stats prints.
type storeStats struct {
	Counts []contents.Count
	Disk   store.Stats
}

func statsOf(d *store.Disk) (s storeStats, err error) {
	if s.Counts, err = contents.Counts(d); err == nil {
		s.Disk, err = d.Stats()
	}
	return s, err
}

// listenControl makes the socket in dir, for the owner only: it is made where
// nobody else can reach it, and moved.
func listenControl(dir string) (net.Listener, error) {
	private := filepath.Join(dir, "control")
	if err := os.RemoveAll(private); err != nil {
		return nil, err
	}
	if err := os.Mkdir(private, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(private) //nolint:errcheck // the next start removes it
	path, done, err := shortPath(private)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	made := filepath.Join(private, store.ControlSocket)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, filepath.Join(dir, store.ControlSocket))); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// shortPath is the path of the socket in dir in a form that fits into an address
// of a socket, which takes about 100 bytes, until done is called.
func shortPath(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, store.ControlSocket)
	if len(path) < 100 {
		return path, func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	short := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	if _, err := os.Stat(short); err != nil {
		return "", nil, errors.Join(fmt.Errorf("the path %s is too long for a socket", path), f.Close())
	}
	return filepath.Join(short, store.ControlSocket), func() { _ = f.Close() }, nil // it was only read
}

// answers says whether a broker serves dir.
func answers(dir string) bool {
	socket, done, err := shortPath(dir)
	if err != nil {
		return false
	}
	defer done()
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// errNoBroker means that no broker serves the directory.
var errNoBroker = errors.New("no broker serves this directory")

// askBroker sends a command to the broker that serves dir.
func askBroker(ctx context.Context, dir, method, path string, query url.Values) (answer []byte, err error) {
	socket, done, err := shortPath(dir)
	if err != nil {
		return nil, errors.Join(errNoBroker, err)
	}
	defer done()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, errors.Join(errNoBroker, err)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true,
	}}
	r, err := http.NewRequestWithContext(ctx, method, "http://broker"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	resp, err := client.Do(r)
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the broker ended before it had done it")
	}
	if err != nil {
		return nil, err
	}
	answer, err = io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(bytes.TrimSpace(answer))))
	}
	return answer, err
}
