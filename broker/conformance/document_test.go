package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/conformance.md")

// root is the repository, seen from this package.
const root = "../.."

var (
	anyTag = regexp.MustCompile(`\[MQTT3?-[^\]]*\]`)
	// A section without numbered statements, such as [MQTT-4.10], may be named.
	sectionTag = regexp.MustCompile(`^\[(MQTT3?-\d+\.\d+)\]$`)
	goodTag    = regexp.MustCompile(`^\[(MQTT3?-\d+\.\d+\.\d+-\d+)\]$`)
)

// proven is a statement with the tests that prove it.
type proven struct {
	Statement
	proofs map[string][]string // test names by file
}

// listed reads one list's statements, with no proofs yet.
func listed(all []Statement) []*proven {
	out := make([]*proven, len(all))
	for i, s := range all {
		out[i] = &proven{s, map[string][]string{}}
	}
	return out
}

// tagged is a test that says it proves a statement.
type tagged struct {
	tag, file, test string
	skips           bool
}

// findTags collects the tags of the test functions of a file. A tag within
// t.Run with a plain name belongs to that subtest. A test that may skip itself
// is marked so.
func findTags(name string, src []byte) ([]tagged, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	type scope struct {
		name       string
		from, to   token.Pos
		skips      bool
		commentsTo int // the last line of which comments belong to it
	}
	var scopes []*scope
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || fn.Body == nil || !testName.MatchString(fn.Name.Name) {
			continue
		}
		from := fn.Pos()
		if fn.Doc != nil {
			from = fn.Doc.Pos()
		}
		top := &scope{name: fn.Name.Name, from: from, to: fn.End(), commentsTo: fset.Position(fn.End()).Line}
		stack := []*scope{top}
		scopes = append(scopes, top)
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			for len(stack) > 1 && call.Pos() >= stack[len(stack)-1].to {
				stack = stack[:len(stack)-1]
			}
			inner := stack[len(stack)-1]
			switch sel.Sel.Name {
			case "Skip", "Skipf", "SkipNow":
				inner.skips = true
			case "Run":
				lit, ok := firstString(call)
				if !ok {
					return true
				}
				s := &scope{name: inner.name + "/" + strings.ReplaceAll(anyTag.ReplaceAllString(lit, ""), " ", "_"),
					from: call.Pos(), to: call.End(), skips: inner.skips, commentsTo: fset.Position(call.End()).Line}
				scopes = append(scopes, s)
				stack = append(stack, s)
			}
			return true
		})
	}
	var found []tagged
	add := func(pos token.Pos, text string) {
		var in *scope
		for _, s := range scopes { // the last that holds pos is the innermost
			if pos >= s.from && (pos < s.to || fset.Position(pos).Line == s.commentsTo) {
				in = s
			}
		}
		if in == nil {
			return
		}
		for _, tag := range anyTag.FindAllString(text, -1) {
			found = append(found, tagged{tag, name, strings.TrimSuffix(in.name, "_"), in.skips})
		}
	}
	for _, g := range f.Comments {
		for _, c := range g.List {
			add(c.Pos(), c.Text)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			add(lit.Pos(), lit.Value)
		}
		return true
	})
	return found, nil
}

var testName = regexp.MustCompile(`^(Test|Fuzz|Example)([^a-z]|$)`)

// firstString returns the first argument of a call if it is a string literal.
func firstString(call *ast.CallExpr) (string, bool) {
	if len(call.Args) == 0 {
		return "", false
	}
	lit, ok := call.Args[0].(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// allTags collects the tags of every test file of the repository.
func allTags(t *testing.T) []tagged {
	t.Helper()
	var all []tagged
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		found, err := findTags(filepath.ToSlash(rel), src)
		all = append(all, found...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDocument_IsUpToDate(t *testing.T) {
	t.Parallel()
	statements5, statements3, err := ReadStatements("testdata")
	if err != nil {
		t.Fatal(err)
	}
	five, three := listed(statements5), listed(statements3)
	byID := map[string]*proven{}
	for _, s := range slices.Concat(five, three) {
		if byID[s.ID] != nil {
			t.Errorf("%s stands twice in the lists", s.ID)
		}
		byID[s.ID] = s
	}
	for _, x := range allTags(t) {
		m := goodTag.FindStringSubmatch(x.tag)
		if sec := sectionTag.FindStringSubmatch(x.tag); sec != nil && !hasStatements(byID, sec[1]) {
			continue
		}
		if m == nil || byID[m[1]] == nil {
			t.Errorf("%s: %s: %s is no statement", x.file, x.test, x.tag)
			continue
		}
		if p := byID[m[1]].proofs; !x.skips && !slices.Contains(p[x.file], x.test) {
			p[x.file] = append(p[x.file], x.test)
		}
	}
	for _, s := range byID {
		if s.Server() && len(s.proofs) == 0 && s.Note == "" {
			t.Errorf("%s binds a server, and has neither a test nor a reason", s.ID)
		}
	}

	var b bytes.Buffer
	b.WriteString(`# Conformance

Made by TestDocument_IsUpToDate in broker/conformance from the tags in the repository's test files; not to be edited by hand.
It lists every normative statement of MQTT 5.0 and MQTT 3.1.1 in our own words, whom it binds, and the tests that prove it.
Tests that may skip themselves do not count. Statements that bind a client appear with a test where the server refuses what breaks them.

| | statements | bind the server | of these tested | not tested, with a reason | bind the client only | of these held against clients |
|---|---|---|---|---|---|---|
`)
	count(&b, "MQTT 5.0", five)
	count(&b, "MQTT 3.1.1", three)
	list(&b, "MQTT 5.0", five)
	list(&b, "MQTT 3.1.1", three)

	file := filepath.Join(root, "docs", "conformance.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(bytes.ReplaceAll(old, []byte("\r\n"), []byte("\n")), b.Bytes()) {
		t.Errorf("docs/conformance.md is out of date (%v): go test ./broker/conformance -run TestDocument -update", err)
	}
}

// hasStatements reports whether a section has numbered statements.
func hasStatements(byID map[string]*proven, section string) bool {
	for id := range byID {
		if strings.HasPrefix(id, section+".") {
			return true
		}
	}
	return false
}

// count writes a row of the summary.
func count(b *bytes.Buffer, title string, all []*proven) {
	var server, tested, reasoned, client, held int
	for _, s := range all {
		switch {
		case s.Server() && len(s.proofs) > 0:
			server++
			tested++
		case s.Server():
			server++
			reasoned++
		case len(s.proofs) > 0:
			client++
			held++
		default:
			client++
		}
	}
	fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d | %d |\n", title, len(all), server, tested, reasoned, client, held)
}

// list writes the table of a specification.
func list(b *bytes.Buffer, title string, all []*proven) {
	fmt.Fprintf(b, "\n## %s\n\n| statement | binds | what it asks | tests |\n|---|---|---|---|\n", title)
	for _, s := range all {
		var cells []string
		for _, file := range slices.Sorted(func(yield func(string) bool) {
			for f := range s.proofs {
				if !yield(f) {
					return
				}
			}
		}) {
			tests := s.proofs[file]
			slices.Sort(tests)
			cells = append(cells, fmt.Sprintf("%s ([%s](../%s))", strings.Join(tests, ", "), file, file))
		}
		if s.Note != "" && len(cells) == 0 {
			cells = append(cells, "none: "+s.Note)
		} else if s.Note != "" {
			cells = append(cells, "note: "+s.Note)
		} else if len(cells) == 0 {
			cells = append(cells, "none: binds the client only")
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", s.ID, s.Binds, s.Text, strings.Join(cells, "; "))
	}
}

func TestFindTags(t *testing.T) {
	t.Parallel()
	const src = `package p

// TestA is documented. [` + `MQTT-1.1.1-1]
func TestA(t *testing.T) { // [` + `MQTT-1.1.1-2]
	t.Run("sub one [` + `MQTT-1.1.1-3]", func(t *testing.T) {})
	t.Run("two", func(t *testing.T) { // [` + `MQTT-1.1.1-4]
		t.Skip()
	})
	// [` + `MQTT-1.1.1-5]
}

func TestB(t *testing.T) { t.Skipf("") } // [` + `MQTT3-1.1.1-6]

func helper() {} // [` + `MQTT-1.1.1-7]
`
	found, err := findTags("x_test.go", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, x := range found {
		got[x.tag] = fmt.Sprint(x.test, " ", x.skips)
	}
	want := map[string]string{"1": "TestA false", "2": "TestA false", "3": "TestA/sub_one false", "4": "TestA/two true",
		"5": "TestA false"}
	for n, w := range want {
		if g := got["[MQTT"+"-1.1.1-"+n+"]"]; g != w {
			t.Errorf("%s: %q instead of %q", n, g, w)
		}
	}
	if g := got["[MQTT3"+"-1.1.1-6]"]; g != "TestB true" || len(got) != 6 {
		t.Errorf("%v", got)
	}
}
