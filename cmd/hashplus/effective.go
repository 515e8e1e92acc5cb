package main

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"

	"hashplus/broker/auth"
)

// writeEffective writes the configuration, after finish, as a YAML file that
// would give the same one. Secrets are in files that keys name; only the query of a
// URL may have one, which is not shown.
func (c *configuration) writeEffective(w io.Writer, flags []*kong.Flag) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	add := func(m *yaml.Node, key string, v *yaml.Node) {
		m.Content = append(m.Content, scalar(key), v)
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		m := &yaml.Node{Kind: yaml.MappingNode}
		add(m, "url", scalar(l.fileURL()))
		add(m, "trusted-proxies", sequence(l.TrustedProxies))
		add(m, "proxy-protocol", scalar(*l.ProxyProtocol))
		if l.withTLS() {
			add(m, "cert", sequence(l.Cert))
			add(m, "key", sequence(l.Key))
			add(m, "min-version", scalar(*l.MinVersion))
			add(m, "client-auth", scalar(*l.ClientAuth))
			add(m, "client-ca", scalar(*l.ClientCA))
			add(m, "crl", sequence(l.CRL))
			add(m, "cert-username", scalar(*l.CertUsername))
		}
		if l.upgrades() {
			add(m, "forwarded-header", scalar(*l.ForwardedHeader))
			add(m, "path", scalar(*l.Path))
			add(m, "origins", sequence(l.Origins))
			add(m, "require-subprotocol", scalar(fmt.Sprint(*l.RequireSubprotocol)))
			add(m, "ping", scalar(l.Ping.String()))
			add(m, "pong-grace", scalar(fmt.Sprint(*l.PongGrace)))
			add(m, "deflate", scalar(fmt.Sprint(*l.Deflate)))
			add(m, "deflate-min-size", scalar(l.DeflateMinSize.String()))
		}
		list.Content = append(list.Content, m)
	}
	add(root, "listeners", list)
	for _, f := range flags {
		if notInFile(f.Name) || slices.Contains([]string{"ws", "tcp", "wss", "tls", "unix"}, f.Name) {
			continue // these are among the listeners now
		}
		v := f.Target
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() == reflect.Slice {
			add(root, f.Name, sequence(v.Interface().([]string)))
			continue
		}
		text := textOf(v)
		if f.Name == "jwt-jwks-url" || f.Name == "auth-http-url" {
			text = auth.RedactURL(text)
		}
		add(root, f.Name, scalar(text))
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		return err
	}
	return e.Close()
}

// fileURL is the URL of the listener, but for its path of requests, as parseURL reads it.
func (l *listenerConfig) fileURL() string {
	address := l.Address
	if l.Network == "unix" && !strings.HasPrefix(address, "/") && !strings.HasPrefix(address, ".") {
		address = "./" + address // else its first part would be read as a host
	}
	return l.Network + "://" + strings.NewReplacer("%", "%25", "?", "%3F", "#", "%23").Replace(address)
}

// scalar is a plain value; one that is empty gets quotes.
func scalar(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: s}
	if s == "" {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func sequence(items []string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, s := range items {
		item := &yaml.Node{}
		item.SetString(s)
		n.Content = append(n.Content, item)
	}
	return n
}
