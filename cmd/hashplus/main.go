// Command hashplus is an MQTT broker, WebSocket first (serve), with clients (pub,
// sub, request, respond), a load generator (bench) and tools for the broker's files
// (passwd, acl, store).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"hashplus/bench"
)

// commands is the command line. Every flag of serve is also an environment
// variable HASHPLUS_<FLAG> and a key of the YAML file; every flag of the clients
// is an environment variable HASHPLUS_CLIENT_<FLAG>.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Run the broker."`
	Pub     pubCommand     `cmd:"" help:"Publish messages."`
	Sub     subCommand     `cmd:"" help:"Subscribe and print what arrives."`
	Request requestCommand `cmd:"" help:"Publish a request and print the replies to it."`
	Respond respondCommand `cmd:"" help:"Answer requests."`
	Bench   bench.Command  `cmd:"" help:"Measure brokers."`
	Passwd  passwdCommand  `cmd:"" help:"Add, change or delete a user of a password file."`
	ACL     aclCommand     `cmd:"" name:"acl" help:"Look into a file with access rules."`
	Store   storeCommand   `cmd:"" help:"Look into the directory of serve --data, copy it, mend it."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// environment is what a command runs in. Tests give their own.
type environment struct {
	ctx    context.Context // ends with the first signal
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	args   []string         // the command line, which run sets
	hangup <-chan os.Signal // asks serve to reload; nil: SIGHUP does
}

func main() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(run(&environment{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}, os.Args[1:]))
}

// run parses args, runs the command and returns the exit code. What went wrong
// is one line on stderr.
func run(env *environment, args []string) (code int) {
	env.args = args
	// kong asks to exit after --help; nothing after that may run.
	type exit int
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exit)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	var c commands
	parsed, err := newParser(&c, env, kong.Exit(func(code int) { panic(exit(code)) })).Parse(joinNegative(args))
	if err != nil {
		fmt.Fprintf(env.stderr, "hashplus: %v\n", err)
		return exitUsage
	}
	if err := parsed.Run(); err != nil {
		if errors.As(err, new(deniedError)) {
			return exitRejected
		}
		name, _, _ := strings.Cut(parsed.Command(), " <") // without the arguments
		fmt.Fprintf(env.stderr, "hashplus %s: %v\n", name, err)
		return exitCode(err)
	}
	return exitOK
}

// newParser is the parser that fills c.
func newParser(c *commands, env *environment, options ...kong.Option) *kong.Kong {
	parser, err := kong.New(c, append(options,
		kong.Name("hashplus"),
		kong.Description("An MQTT broker for WebSocket and TCP, and clients for it."),
		kong.Writers(env.stdout, env.stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.PostBuild(nameEnvironment),
		kong.KindMapper(reflect.Int, wholeNumber(math.MinInt, math.MaxInt)),
		kong.KindMapper(reflect.Uint8, wholeNumber(0, math.MaxUint8)),
		kong.KindMapper(reflect.Uint16, wholeNumber(0, math.MaxUint16)),
		kong.TypeMapper(reflect.TypeFor[Size](), kong.MapperFunc(readText)),
		kong.TypeMapper(reflect.TypeFor[Seconds](), kong.MapperFunc(readText)),
		kong.Bind(env),
		kong.BindTo(env.ctx, (*context.Context)(nil)),
	)...)
	if err != nil {
		panic(err) // a mistake in the struct tags, which every test sees
	}
	return parser
}

// nameEnvironment gives every flag its environment variable.
func nameEnvironment(k *kong.Kong) error {
	for _, node := range k.Model.Children {
		prefix := "HASHPLUS_CLIENT_"
		switch node.Name {
		case "serve":
			prefix = "HASHPLUS_"
		case "bench", "passwd", "acl", "version":
			continue
		}
		for _, f := range node.Flags {
			if f.Name == "help" || len(f.Envs) > 0 {
				continue
			}
			name := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			f.Envs = []string{name}
			f.Value.Tag.Envs = f.Envs
		}
	}
	return nil
}
