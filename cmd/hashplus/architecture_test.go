package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The directions of ARCHITECTURE.md, indirect imports included.
func TestArchitecture(t *testing.T) {
	for _, rule := range []struct {
		pkg       string
		forbidden []string // a package, or a tree if it ends in a slash
	}{
		{"hashplus/topic", []string{"hashplus/", "github.com/", "golang.org/"}},
		{"hashplus/transport/link", []string{"hashplus/", "net", "syscall/"}},
		{"hashplus/transport", []string{"hashplus/broker", "hashplus/topic", "hashplus/broker/"}},
		{"hashplus/broker/wire", []string{"hashplus/", "net"}},
		{"hashplus/broker", []string{"net", "net/http", "hashplus/transport", "hashplus/broker/auth", "hashplus/broker/store"}},
		{"hashplus/bench", []string{"hashplus/broker", "hashplus/transport", "hashplus/topic"}},
	} {
		out, err := exec.Command("go", "list", "-deps", rule.pkg).CombinedOutput()
		if err != nil {
			t.Fatalf("go list %s: %v\n%s", rule.pkg, err, out)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for _, f := range rule.forbidden {
				if dep != rule.pkg && (dep == f || strings.HasSuffix(f, "/") && strings.HasPrefix(dep, f)) &&
					!strings.HasPrefix(dep, rule.pkg+"/") {
					t.Errorf("%s imports %s", rule.pkg, dep)
				}
			}
		}
	}
}
