package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"hashplus/transport"
)

// The prose of docs/configuration.md stands in testdata/configuration.md, where
// a line of the form {{name}} is replaced by a table.
func TestDocs_ConfigurationIsUpToDate(t *testing.T) {
	prose, err := os.ReadFile("testdata/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	env := &environment{ctx: context.Background(), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	model := newParser(&commands{}, env).Model
	tables := map[string]string{
		"serve":     serveTable(model),
		"listeners": listenerTable(t),
		"clients":   clientTables(model),
		"tools":     toolTables(model),
		"exits":     exitTable(),
	}
	var b strings.Builder
	b.WriteString("<!-- Written by go test ./cmd/hashplus -update. Change the flags' help or cmd/hashplus/testdata/configuration.md. -->\n\n")
	for line := range strings.Lines(string(prose)) {
		name, isTable := strings.CutPrefix(strings.TrimSpace(line), "{{")
		if !isTable {
			b.WriteString(line)
			continue
		}
		name = strings.TrimSuffix(name, "}}")
		table, ok := tables[name]
		if !ok {
			t.Fatalf("no table %s", name)
		}
		b.WriteString(table)
		delete(tables, name)
	}
	if len(tables) > 0 {
		t.Errorf("tables left out: %q", slices.Collect(maps.Keys(tables)))
	}
	golden(t, "../../docs/configuration.md", b.String())
}

func commandNode(model *kong.Application, name string) *kong.Node {
	for _, n := range model.Children {
		if n.Name == name {
			return n
		}
	}
	panic("no command " + name)
}

// escape makes text fit into a cell.
func escape(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;").Replace(strings.ReplaceAll(s, "$$", "$"))
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// flagName is the flag as it is typed.
func flagName(f *kong.Flag) string {
	name := "--" + f.Name
	if f.Tag.Negatable != "" {
		name = "--[no-]" + f.Name
	}
	if f.Short != 0 {
		name = "-" + string(f.Short) + ", " + name
	}
	return name
}

func serveTable(model *kong.Application) string {
	var b strings.Builder
	group := "-"
	for _, f := range commandNode(model, "serve").Flags {
		if f.Name == "help" {
			continue
		}
		g := "General"
		if f.Group != nil {
			g = f.Group.Title
		}
		if g != group {
			group = g
			fmt.Fprintf(&b, "\n### %s\n\n| Flag | Environment | YAML key | Default | Reload | Meaning |\n|---|---|---|---|---|---|\n", g)
		}
		key := f.Name
		if notInFile(key) {
			key = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", code(flagName(f)), code(f.Envs[0]), code(key), code(defaultOf(f)),
			reloads[f.Name], escape(f.Help))
	}
	return b.String()
}

func defaultOf(f *kong.Flag) string {
	switch {
	case f.HasDefault:
		return f.Default
	case f.IsBool() && f.Name != "allow-anonymous":
		return "false"
	}
	return ""
}

func listenerTable(t *testing.T) string {
	meaning := map[string][2]string{
		"url":                 {"", "Where to listen: `ws://host:port/path`, `wss://host:port/path`, `tcp://host:port`, `tls://host:port` or `unix:///path`. Required."},
		"cert":                {"`tls-cert`", "List of certificates with their chains. For `wss://` and `tls://`, as the next six."},
		"key":                 {"`tls-key`", "List of keys, one for each certificate."},
		"min-version":         {"`tls-min-version`", "`1.2` or `1.3`."},
		"client-auth":         {"`tls-client-auth`", "`none`, `optional` or `required`."},
		"client-ca":           {"`tls-client-ca`", "Certificates of those who sign certificates of clients."},
		"crl":                 {"`tls-crl`", "List of revocation lists."},
		"cert-username":       {"`tls-username`", "`cn`, `dns`, `email`, `uri` or `none`."},
		"trusted-proxies":     {"`trusted-proxies`", "List of addresses and networks of proxies that are believed when they name the client."},
		"proxy-protocol":      {"`proxy-protocol`", "`off`, `required` or `optional`."},
		"forwarded-header":    {"`forwarded-header`", "`X-Forwarded-For`, `Forwarded` or `none`. For `ws://` and `wss://`, as what follows."},
		"path":                {"`ws-path`", "As the path of the URL, or `\"\"` to answer any."},
		"origins":             {"`ws-origins`", "List of origins that are let in."},
		"require-subprotocol": {"`ws-require-subprotocol`", "Refuse clients that offer no known sub-protocol."},
		"ping":                {"`ws-ping`", "Interval of pings; 0 sends none."},
		"pong-grace":          {"`pong-grace`", "Let pongs stretch the keep alive."},
		"deflate":             {"`ws-deflate`", "Let clients negotiate compression."},
		"deflate-min-size":    {"`ws-deflate-min-size`", "Smallest packet that is worth compressing."},
	}
	var b strings.Builder
	b.WriteString("| Key | Taken from, if absent | Meaning |\n|---|---|---|\n")
	known := (&listenerConfig{}).fields()
	for _, key := range []string{"url", "trusted-proxies", "proxy-protocol", "cert", "key", "min-version", "client-auth", "client-ca", "crl", "cert-username", "forwarded-header", "path", "origins", "require-subprotocol", "ping", "pong-grace", "deflate", "deflate-min-size"} {
		if _, ok := known[key]; !ok {
			t.Errorf("listeners have no key %s", key)
		}
		delete(known, key)
		fmt.Fprintf(&b, "| %s | %s | %s |\n", code(key), meaning[key][0], meaning[key][1])
	}
	for key := range known {
		t.Errorf("the key %s of listeners is not documented", key)
	}
	return b.String()
}

// clientTables are the flags that all clients share, then those of each.
func clientTables(model *kong.Application) string {
	clients := []string{"pub", "sub", "request", "respond"}
	seen := map[string]int{}
	for _, c := range clients {
		for _, f := range commandNode(model, c).Flags {
			seen[f.Name+f.Help]++
		}
	}
	var b strings.Builder
	row := func(f *kong.Flag) {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", code(flagName(f)), code(f.Envs[0]), code(defaultOf(f)), escape(f.Help))
	}
	table := func(title string, flags []*kong.Flag, shared bool) {
		fmt.Fprintf(&b, "\n### %s\n\n| Flag | Environment | Default | Meaning |\n|---|---|---|---|\n", title)
		for _, f := range flags {
			if f.Name != "help" && (seen[f.Name+f.Help] == len(clients)) == shared {
				row(f)
			}
		}
	}
	table("All clients", commandNode(model, "pub").Flags, true)
	for _, c := range clients {
		table("`hashplus "+c+"`", commandNode(model, c).Flags, false)
	}
	return b.String()
}

// tools are the commands beside serve, the clients and bench, which has too many;
// those that hold others are left out.
func tools(model *kong.Application) (leaves []*kong.Node) {
	for _, n := range model.Leaves(true) {
		if top := strings.Fields(n.Path())[0]; !slices.Contains([]string{"serve", "pub", "sub", "request", "respond", "bench"}, top) {
			leaves = append(leaves, n)
		}
	}
	return leaves
}

// toolTables are the arguments and flags of each.
func toolTables(model *kong.Application) string {
	var b strings.Builder
	for _, n := range tools(model) {
		fmt.Fprintf(&b, "\n### `%s`\n\n%s\n", commandLine(n), escape(n.Help))
		header := "\n| Argument or flag | Environment | Default | Meaning |\n|---|---|---|---|\n"
		row := func(name, env, value, help string) {
			fmt.Fprintf(&b, "%s| %s | %s | %s | %s |\n", header, code(name), code(env), code(value), escape(help))
			header = ""
		}
		for _, a := range n.Positional {
			row(a.Summary(), "", a.Default, a.Help)
		}
		for _, group := range n.AllFlags(true) {
			for _, f := range group {
				if f.Name != "help" {
					row(flagName(f), strings.Join(f.Envs, " "), defaultOf(f), f.Help)
				}
			}
		}
	}
	return b.String()
}

func commandLine(n *kong.Node) string { return "hashplus " + n.Path() }

func exitTable() string {
	var b strings.Builder
	b.WriteString("| Code | Meaning |\n|---|---|\n")
	for _, e := range []struct {
		code int
		text string
	}{
		{exitOK, "Done. For `serve`: drained after a signal. For `sub`, `respond` and `pub --count 0`: ended by a signal or `--timeout` with nothing left to wait for."},
		{exitFailure, "Anything not below: a listener that cannot listen, a failed read or write, a data directory that is in use, foreign or of a newer format."},
		{exitUsage, "A wrong flag, environment variable, file or combination of them. Nothing was started or connected."},
		{exitUnreachable, "The server cannot be reached: network, TLS, or a refused WebSocket upgrade."},
		{exitRefused, "The server refused the CONNECT."},
		{exitRejected, "The server refused a subscription or a message, or nobody subscribes to the topic of a request. For `acl check`: denied."},
		{exitLost, "The connection was lost or ended by the server, and is not made again."},
		{exitTimeout, "`--timeout` ran out before the work was done."},
		{exitStuck, "The store failed, and what is left of it could not be closed: only a new process can open the directory again. Restart the broker."},
		{exitDamaged, "The store is damaged: for `serve`, nothing was started; for `store check`, something was found; for `store salvage`, something was lost."},
		{exitInterrupted, "A signal before the work was done; for `serve`, a second signal."},
	} {
		fmt.Fprintf(&b, "| %d | %s |\n", e.code, e.text)
	}
	return b.String()
}

func TestDocs_EveryFlagHasHelpAndAnEnvironmentVariable(t *testing.T) {
	env := &environment{ctx: context.Background(), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	taken := map[string]string{}
	model := newParser(&commands{}, env).Model
	for _, name := range []string{"serve", "pub", "sub", "request", "respond"} {
		node := commandNode(model, name)
		prefix := "HASHPLUS_CLIENT_"
		if node.Name == "serve" {
			prefix = "HASHPLUS_"
		}
		for _, f := range node.Flags {
			if f.Name == "help" {
				continue
			}
			want := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if f.Help == "" || len(f.Envs) != 1 || f.Envs[0] != want {
				t.Errorf("%s --%s: help %q, environment %q, want %s", node.Name, f.Name, f.Help, f.Envs, want)
			}
			if other := taken[want]; other != "" && (other == "serve") != (node.Name == "serve") {
				t.Errorf("%s belongs to both %s and %s", want, other, node.Name)
			}
			taken[want] = node.Name
		}
	}
}

func TestDocs_EveryCommandArgumentAndFlagHasHelp(t *testing.T) {
	env := &environment{ctx: context.Background(), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	for _, n := range tools(newParser(&commands{}, env).Model) {
		if n.Help == "" {
			t.Errorf("%s has no help", n.Path())
		}
		for _, a := range n.Positional {
			if a.Help == "" {
				t.Errorf("%s %s has no help", n.Path(), a.Name)
			}
		}
		for _, f := range n.Flags {
			if f.Help == "" {
				t.Errorf("%s --%s has no help", n.Path(), f.Name)
			}
		}
	}
}

// What the transport adds to $SYS is explained in docs/sys.md like the rest.
func TestDocs_TransportsSysTopicsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/sys.md")
	if err != nil {
		t.Fatal(err)
	}
	transportSys(new(transport.Server), func(name string, _ int64) {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/sys.md says nothing of %s", name)
		}
	})
}

// The defaults that docs/security.md gives for limits are those of the flags, and
// every flag that is a limit stands there.
func TestDocs_LimitsHaveTheirDefaults(t *testing.T) {
	page, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## Limits\n")
	section, _, _ = strings.Cut(section, "\n## ")
	told := map[string]string{}
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, " | "); len(cells) == 3 && strings.HasPrefix(line, "| `") {
			told[strings.Trim(cells[0], "| `")] = cells[1]
		}
	}
	env := &environment{ctx: context.Background(), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
	notLimits := []string{"queue-full", "ban-window", "ban-time", "ban-by", "strict"}
	for _, f := range commandNode(newParser(&commands{}, env).Model, "serve").Flags {
		if want, ok := told[f.Name]; ok {
			if defaultOf(f) != want {
				t.Errorf("the default of %s is %s, not %s", f.Name, defaultOf(f), want)
			}
			delete(told, f.Name)
		} else if f.Group != nil && f.Group.Title == "Limits" && !slices.Contains(notLimits, f.Name) {
			t.Errorf("docs/security.md says nothing of %s", f.Name)
		}
	}
	for name := range told {
		t.Errorf("there is no flag %s", name)
	}
}
