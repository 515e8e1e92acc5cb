package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"hashplus/broker"
	"hashplus/broker/auth"
)

// passwdCommand edits the files that serve reads with --password-file and
// --scram-file. The password is asked for twice on a terminal; otherwise it is
// the first line of stdin. It is never taken from the command line, which other
// users can read.
type passwdCommand struct {
	File       string `arg:"" type:"path" help:"The password file. It is made if it is not there, readable by its owner only."`
	User       string `arg:"" help:"The username."`
	Scram      bool   `xor:"scheme" help:"FILE holds SCRAM-SHA-256 verifiers (serve --scram-file) in place of password hashes (serve --password-file)."`
	Delete     bool   `short:"D" xor:"what" help:"Delete the user."`
	Verify     bool   `xor:"what" help:"Change nothing: the exit code is 0 if the password is the user's, 1 if not."`
	PBKDF2     bool   `name:"pbkdf2" xor:"scheme" help:"Hash with PBKDF2, which mosquitto before 2.1 reads too, in place of Argon2id."`
	Iterations int    `placeholder:"N" help:"How often --pbkdf2 and --scram hash the password. Default: 100000, with --scram 4096, which the client pays for."`
}

// Run edits the file.
func (c *passwdCommand) Run(env *environment) error {
	text, err := os.ReadFile(c.File)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && (!missing || c.Delete || c.Verify):
		return err
	case c.Iterations != 0 && !c.PBKDF2 && !c.Scram:
		return usagef("--iterations is for --pbkdf2 and --scram: Argon2id has none")
	case c.Verify && c.Scram:
		return usagef("--verify is for password hashes, not for --scram")
	}
	// A file that serve would refuse, or of the other kind, is left alone.
	if err := c.parse(text); err != nil {
		return err
	}
	if c.Delete {
		rest, found := auth.RemoveEntry(text, c.User)
		if !found {
			return fmt.Errorf("%s has no user %q", c.File, c.User)
		}
		return replaceFile(c.File, rest)
	}
	password, err := readPassword(env, c.User)
	if err != nil {
		return err
	}
	if c.Verify {
		return c.verify(env, text, password)
	}
	entry, err := c.entry(password)
	if err != nil {
		return usageError{err}
	}
	return replaceFile(c.File, auth.SetEntry(text, entry))
}

// verify reports whether password is the user's.
func (c *passwdCommand) verify(env *environment, text []byte, password string) error {
	p, err := auth.ParsePasswords(c.File, text)
	if err != nil {
		return err
	}
	_, err = p.Authenticate(env.ctx, &broker.AuthRequest{HasUsername: true, Username: c.User, HasPassword: true, Password: []byte(password)})
	var refusal *broker.Refusal
	if errors.As(err, &refusal) {
		return errors.New(refusal.Detail)
	}
	return err
}

func (c *passwdCommand) parse(text []byte) (err error) {
	if c.Scram {
		_, err = auth.ParseScram(c.File, text)
	} else {
		_, err = auth.ParsePasswords(c.File, text)
	}
	return err
}

func (c *passwdCommand) entry(password string) (string, error) {
	switch {
	case c.Scram:
		return auth.NewScram(c.User, password, cmp.Or(c.Iterations, auth.DefaultScramIterations))
	case c.PBKDF2:
		return auth.NewPBKDF2Password(c.User, password, cmp.Or(c.Iterations, auth.DefaultIterations))
	}
	return auth.NewPassword(c.User, password)
}

// readPassword asks for the password of user or reads a line.
func readPassword(env *environment, user string) (string, error) {
	f, ok := env.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(env.stdin, 128<<10)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", err
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	first, err := prompt(env, f, "Password for "+user+": ")
	if err != nil {
		return "", err
	}
	second, err := prompt(env, f, "Once more: ")
	if err == nil && first != second {
		err = usagef("the passwords are not the same")
	}
	return first, err
}

// prompt reads a line from the terminal, which does not show it.
func prompt(env *environment, f *os.File, text string) (string, error) {
	fd := int(f.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprint(env.stderr, text)
	defer fmt.Fprintln(env.stderr)
	type line struct {
		b   []byte
		err error
	}
	read := make(chan line, 1)
	go func() {
		b, err := term.ReadPassword(fd)
		read <- line{b, err}
	}()
	select {
	case l := <-read:
		return string(l.b), l.err
	case <-env.ctx.Done(): // a signal does not end the read, nor show again what is typed
		return "", errors.Join(errInterrupted, term.Restore(fd, before))
	}
}

// replaceFile gives the file at path the contents text in one step, so that
// nobody reads half of it. Its mode stays what it was, as far as possible its
// owner too; a new file is for its owner only.
func replaceFile(path string, text []byte) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	info, gone := os.Stat(path)
	if gone == nil {
		keepOwner(f, info)
		err = f.Chmod(info.Mode().Perm())
	}
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
