package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	kongyaml "github.com/alecthomas/kong-yaml"
	"gopkg.in/yaml.v3"
)

// configFile is a YAML file: the names of flags as keys, and listeners. An
// underscore in a key reads as a hyphen.
type configFile struct {
	path      string
	listeners []listenerConfig
	values    kong.Resolver
}

// loadConfigFile reads and checks the file for the flags of serve. Every error
// names the file and the line.
func loadConfigFile(path string, flags []*kong.Flag) (*configFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	c := &configFile{path: path}
	var doc yaml.Node
	decoder := yaml.NewDecoder(f)
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var second yaml.Node
	if err := decoder.Decode(&second); err == nil {
		return nil, c.errorf(&second, "a second document begins: all of the configuration stands in one")
	} else if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	root := &yaml.Node{Kind: yaml.MappingNode}
	if len(doc.Content) > 0 && doc.Content[0].Tag != "!!null" {
		root = doc.Content[0]
	}
	if root.Kind != yaml.MappingNode {
		return nil, c.errorf(root, "the file is not a mapping of keys to values")
	}
	byName := map[string]*kong.Flag{}
	for _, f := range flags {
		if !notInFile(f.Name) {
			byName[f.Name] = f
		}
	}
	kept := &yaml.Node{Kind: yaml.MappingNode}
	err = c.each(root, func(key string, k, v *yaml.Node) error {
		if key == "listeners" {
			return c.readListeners(v)
		}
		flag, ok := byName[key]
		if !ok {
			return c.unknown(k, append(names(byName), "listeners"))
		}
		if err := c.try(flag, key, v); err != nil {
			return err
		}
		kept.Content = append(kept.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// kong-yaml looks the flags of a command up below the command's name.
	text, err := yaml.Marshal(map[string]*yaml.Node{"serve": kept})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c.values, err = kongyaml.Loader(bytes.NewReader(text))
	return c, err
}

// notInFile reports whether a flag of serve has no key.
func notInFile(flag string) bool { return flag == "help" || flag == "config" || flag == "check" }

// Validate is part of kong.Resolver.
func (c *configFile) Validate(*kong.Application) error { return nil }

// Resolve gives the file's value of a flag. The environment comes first, which
// kong leaves to the resolver.
func (c *configFile) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return nil, nil
		}
	}
	return c.values.Resolve(ctx, parent, flag)
}

func (c *configFile) errorf(at *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", c.path, at.Line, fmt.Sprintf(format, args...))
}

// each calls f for the entries of a mapping. A key that stands there twice is
// an error.
func (c *configFile) each(m *yaml.Node, f func(key string, k, v *yaml.Node) error) error {
	seen := map[string]bool{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		if v.Kind == yaml.AliasNode {
			v = v.Alias
		}
		key := strings.ReplaceAll(k.Value, "_", "-")
		if seen[key] {
			return c.errorf(k, "%s stands there twice", key)
		}
		seen[key] = true
		if err := f(key, k, v); err != nil {
			return err
		}
	}
	return nil
}

// unknown is the error for a key that nobody knows, with the one that was
// probably meant.
func (c *configFile) unknown(k *yaml.Node, known []string) error {
	slices.Sort(known)
	if best := nearest(strings.ReplaceAll(k.Value, "_", "-"), known); best != "" {
		return c.errorf(k, "unknown key %s; did you mean %s?", k.Value, best)
	}
	return c.errorf(k, "unknown key %s; known are %s", k.Value, strings.Join(known, ", "))
}

// try reads the value as the flag will, so that a mistake is told with its line.
// It turns every scalar into text, as the command line would give it.
func (c *configFile) try(flag *kong.Flag, key string, v *yaml.Node) error {
	var value any
	switch v.Kind {
	case yaml.ScalarNode:
		v.Tag, v.Style = "!!str", yaml.DoubleQuotedStyle
		value = v.Value
	case yaml.SequenceNode:
		if flag.Target.Kind() != reflect.Slice {
			return c.errorf(v, "%s: takes one value, not a list", key)
		}
		list := []any{}
		for _, item := range v.Content {
			if item.Kind != yaml.ScalarNode {
				return c.errorf(item, "%s: takes a list of plain values", key)
			}
			item.Tag, item.Style = "!!str", yaml.DoubleQuotedStyle
			list = append(list, item.Value)
		}
		value = list
	default:
		return c.errorf(v, "%s: takes a value, not a mapping", key)
	}
	scratch := reflect.New(flag.Target.Type()).Elem()
	if scratch.Kind() == reflect.Pointer {
		scratch.Set(reflect.New(scratch.Type().Elem()))
	}
	scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, scratch); err != nil {
		return c.errorf(v, "%s: %v", key, err)
	}
	if flag.Enum != "" && !slices.Contains(strings.Split(flag.Enum, ","), v.Value) {
		return c.errorf(v, "%s: %q is not one of %s", key, v.Value, strings.ReplaceAll(flag.Enum, ",", ", "))
	}
	return nil
}

// readListeners reads the listeners key.
func (c *configFile) readListeners(list *yaml.Node) error {
	if list.Kind != yaml.SequenceNode {
		return c.errorf(list, "listeners: is a list of listeners, each with a url")
	}
	for _, item := range list.Content {
		if item.Kind != yaml.MappingNode {
			return c.errorf(item, "listeners: each is a mapping with a url")
		}
		l := listenerConfig{key: fmt.Sprintf("%s:%d: listeners", c.path, item.Line)}
		fields := l.fields()
		err := c.each(item, func(key string, k, v *yaml.Node) error {
			target, ok := fields[key]
			if !ok {
				return c.unknown(k, names(fields))
			}
			if _, list := target.(*[]string); list && v.Kind == yaml.ScalarNode && v.Tag != "!!null" {
				v = &yaml.Node{Kind: yaml.SequenceNode, Line: v.Line, Content: []*yaml.Node{v}} // one value
			}
			if err := v.Decode(target); err != nil {
				text := strings.TrimPrefix(err.Error(), "yaml: unmarshal errors:\n  ")
				return c.errorf(v, "listeners: %s: %s", key, strings.TrimPrefix(text, fmt.Sprintf("line %d: ", v.Line)))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if l.URL == "" {
			return c.errorf(item, "listeners: url is missing")
		}
		c.listeners = append(c.listeners, l)
	}
	return nil
}

// fields maps the keys of a listener to where their values go.
func (l *listenerConfig) fields() map[string]any {
	return map[string]any{
		"url": &l.URL, "trusted-proxies": &l.TrustedProxies, "proxy-protocol": &l.ProxyProtocol,
		"forwarded-header": &l.ForwardedHeader, "path": &l.Path, "origins": &l.Origins,
		"require-subprotocol": &l.RequireSubprotocol, "ping": &l.Ping,
		"cert": &l.Cert, "key": &l.Key, "min-version": &l.MinVersion, "client-auth": &l.ClientAuth,
		"client-ca": &l.ClientCA, "crl": &l.CRL, "cert-username": &l.CertUsername,
		"pong-grace": &l.PongGrace, "deflate": &l.Deflate, "deflate-min-size": &l.DeflateMinSize,
	}
}

func names[V any](m map[string]V) []string {
	out := make([]string, 0, len(m)+1)
	for n := range m {
		out = append(out, n)
	}
	return out
}

// nearest is the one of known that was probably meant by name, "" if none is near.
func nearest(name string, known []string) (best string) {
	at := 3
	for _, n := range known {
		if d := distance(name, n); d < at {
			best, at = n, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove or replace to make a of b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := above
			if a[i] != b[j] {
				d = 1 + min(above, row[j], row[j+1])
			}
			above, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
