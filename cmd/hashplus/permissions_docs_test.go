package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The console blocks of docs/permissions.md say what their commands print, with
// the file of the page.
func TestDocs_PermissionsExamplesPrintWhatThePageSays(t *testing.T) {
	page, err := os.ReadFile("../../docs/permissions.md")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if err := os.Symlink(self, "hashplus"); err != nil {
		t.Fatal(err)
	}
	blocks := map[string][]string{}
	for i, part := range strings.Split(string(page), "```") {
		if i%2 == 1 {
			kind, text, _ := strings.Cut(part, "\n")
			blocks[kind] = append(blocks[kind], text)
		}
	}
	if len(blocks["acl"]) != 1 || len(blocks["console"]) == 0 {
		t.Fatal("the page has no file or no examples")
	}
	rewrite(t, "acl", blocks["acl"][0])
	for _, block := range blocks["console"] {
		var want, got strings.Builder
		for line := range strings.Lines(block) {
			want.WriteString(line)
			command, ok := strings.CutPrefix(line, "$ ")
			if !ok {
				continue
			}
			cmd := exec.Command("sh", "-c", command)
			cmd.Env = append(os.Environ(), asMain+"=1", "PATH=.:"+os.Getenv("PATH"))
			out, _ := cmd.CombinedOutput() // a refusal has an exit code
			got.WriteString(line)
			got.Write(out)
		}
		if got.String() != want.String() {
			t.Errorf("the page says\n%s\nand this comes:\n%s", want.String(), got.String())
		}
	}
}
