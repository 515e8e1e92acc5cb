package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// The console blocks of docs/authentication.md say what their commands print,
// one after the other in one directory. Each block is one run of a shell.
func TestDocs_AuthenticationExamplesPrintWhatThePageSays(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no sh")
	}
	page, err := os.ReadFile("../../docs/authentication.md")
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
	blocks := 0
	for i, part := range strings.Split(string(page), "```") {
		block, ok := strings.CutPrefix(part, "console\n")
		if i%2 == 0 || !ok {
			continue
		}
		blocks++
		cmd := exec.Command("bash", "-c", script(block))
		cmd.Env = append(os.Environ(), asMain+"=1", "PATH="+mustGetwd(t)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := string(out); got != block || err != nil {
			log, _ := os.ReadFile("log")
			t.Errorf("%v: the page says\n%s\nand this comes:\n%s\nthe broker says\n%s", err, block, got, log)
		}
	}
	if blocks == 0 {
		t.Error("the page has no examples")
	}
}

// script says each command of a block before it runs it, as the block does, and
// ends what it has left running.
func script(block string) string {
	var b strings.Builder
	b.WriteString("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n")
	say := func(line string) { b.WriteString("printf '%s\\n' '" + strings.ReplaceAll(line, "'", `'\''`) + "'\n") }
	lines := strings.Split(strings.TrimSuffix(block, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		command, ok := strings.CutPrefix(lines[i], "$ ")
		if !ok {
			continue // what a command prints
		}
		say(lines[i])
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "> ") {
			i++
			say(lines[i])
			command += "\n" + lines[i][2:]
		}
		b.WriteString(command + "\n")
	}
	b.WriteString("true\n")
	return b.String()
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
