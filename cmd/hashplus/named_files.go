package main

import (
	"crypto/sha256"
	"os"
	"slices"
)

// namedFile is a file that a key names.
type namedFile struct{ key, path string }

// digest is that of a file's contents.
type digest [sha256.Size]byte

// files are those that c names, with what they say about who may do what.
func (c *configuration) files() (files []namedFile) {
	add := func(key string, paths ...string) {
		for _, p := range paths {
			if p != "" {
				files = append(files, namedFile{key, p})
			}
		}
	}
	for i := range c.Listeners {
		if l := &c.Listeners[i]; l.withTLS() {
			add("tls-cert", l.Cert...)
			add("tls-key", l.Key...)
			add("tls-client-ca", *l.ClientCA)
			add("tls-crl", l.CRL...)
		}
	}
	add("acl", c.ACL)
	add("password-file", c.PasswordFile)
	add("scram-file", c.ScramFile)
	add("jwt-keys", c.JWTKeys...)
	add("jwt-secret", c.JWTSecret...)
	add("jwt-jwks-ca", c.JWTJWKSCA)
	add("auth-http-ca", c.AuthHTTPCA)
	add("auth-http-token-file", c.AuthHTTPTokenFile)
	return files
}

// digests are of what stands in the files that c names, to see later what has changed.
func digests(c *configuration) map[namedFile]digest {
	m := map[namedFile]digest{}
	for _, f := range c.files() {
		text, err := os.ReadFile(f.path)
		if err == nil { // else whoever needs it says so
			m[f] = sha256.Sum256(text)
		}
	}
	return m
}

// differing are the keys of files that are in both with other contents.
func differing(before, now map[namedFile]digest) (keys []string) {
	for f, sum := range now {
		if old, ok := before[f]; ok && old != sum && !slices.Contains(keys, f.key) {
			keys = append(keys, f.key)
		}
	}
	slices.Sort(keys)
	return keys
}
