package main

import (
	"os"
	"strings"
	"testing"
)

const aclExample = `# who may read the news
topic read news/#
user alice
topic readwrite site/#
topic deny site/secret
pattern readwrite home/%u/#
`

func TestACLCheck_NamesTheRuleThatDecides(t *testing.T) {
	file := writeFile(t, "acl", aclExample)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--user alice publish site/1", exitOK, `allowed: user "alice", client "client" may publish to site/1
  FILE:4: topic readwrite site/#
`},
		{"--user alice publish site/secret", exitRejected, `denied: user "alice", client "client" may not publish to site/secret
  FILE:5: topic deny site/secret
`},
		{"--user alice --client c1 subscribe site/#", exitOK, `allowed: user "alice", client "c1" may subscribe to site/#
  FILE:4: topic readwrite site/#
  but not what is denied by FILE:5: topic deny site/secret
`},
		{"subscribe #", exitRejected, `denied: anonymous client "client" may not subscribe to #
  no rule covers it
  a part of it is allowed by FILE:2: topic read news/#
`},
		{"--user alice subscribe $share/g/home/alice/+", exitOK, `allowed: user "alice", client "client" may subscribe to $share/g/home/alice/+
  FILE:6: pattern readwrite home/%u/#
`},
		{"--user alice --claim-publish extra/+ publish extra/x", exitOK, `allowed: user "alice", client "client" may publish to extra/x
  claim: extra/+
`},
		{"--user alice publish a/+", exitUsage, ""},
		{"--user alice subscribe a#", exitUsage, ""},
		{"--user alice subscribe $share/g", exitUsage, ""},
		{"--user alice --claim-publish a# publish a", exitUsage, ""},
		{"--user alice delete a", exitUsage, ""},
	} {
		code, stdout, stderr := command(t, append([]string{"acl", "check", "--acl=" + file}, strings.Fields(c.args)...)...)
		if got := strings.ReplaceAll(stdout, file, "FILE"); code != c.code || got != c.want || (stderr != "") != (c.code == exitUsage) {
			t.Errorf("%s: exit %d, %s%s", c.args, code, got, stderr)
		}
	}
}

func TestACLValidate_NamesEveryFault(t *testing.T) {
	file := writeFile(t, "acl", aclExample)
	if code, stdout, stderr := command(t, "acl", "validate", "--acl="+file); code != exitOK || stdout != file+": valid, 4 rules\n" {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
	file = writeFile(t, "acl", "topic reed a b\nuser\n")
	code, _, stderr := command(t, "acl", "validate", "--acl="+file)
	if code != exitUsage || !strings.Contains(stderr, file+":1: ") || !strings.Contains(stderr, file+":2: ") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if code, _, _ := command(t, "acl", "check", "--acl="+file, "publish", "a"); code != exitUsage {
		t.Errorf("check of a faulty file: exit %d", code)
	}
}

func TestServe_WarnsOfAFileOfRulesThatAnybodyMayChange(t *testing.T) {
	file := writeFile(t, "acl", aclExample)
	if _, _, stderr := check(t, "--acl="+file); strings.Contains(stderr, "changed by every user") {
		t.Errorf("of a private file it says %s", stderr)
	}
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, _, stderr := check(t, "--acl="+file); !strings.Contains(stderr, "changed by every user") {
		t.Errorf("it says %s", stderr)
	}
}
