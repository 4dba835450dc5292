package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const architecture = "contrib/docs/architecture.md"

// Each arrow of the architecture page is an import, and none goes the other way, not even through
// other packages.
func TestArchitectureArrows(t *testing.T) {
	imports := packages(t)
	var reaches func(from, to string, seen map[string]bool) bool
	reaches = func(from, to string, seen map[string]bool) bool {
		if from == to {
			return true
		}
		if seen[from] {
			return false
		}
		seen[from] = true
		return slices.ContainsFunc(imports[from], func(next string) bool { return reaches(next, to, seen) })
	}
	_, rest, _ := strings.Cut(page(t, architecture), "An arrow means \"imports\".")
	diagram := strings.Split(rest, "```")[1]
	arrows := 0
	for line := range strings.Lines(diagram) {
		for _, chain := range regexp.MustCompile(` {3,}`).Split(strings.TrimSpace(line), -1) {
			links := strings.Split(chain, "─►")
			for i := 1; i < len(links); i++ {
				from, to := named(links[i-1], imports), named(links[i], imports)
				for _, b := range to {
					arrows++
					if !slices.ContainsFunc(from, func(a string) bool { return slices.Contains(imports[a], b) }) {
						t.Errorf("%q: none of %q imports %s", strings.TrimSpace(chain), from, b)
					}
					for _, a := range from {
						if reaches(b, a, map[string]bool{}) {
							t.Errorf("%q: %s imports %s, against the arrow", strings.TrimSpace(chain), b, a)
						}
					}
				}
			}
		}
	}
	if arrows < 20 {
		t.Errorf("%d arrows", arrows)
	}
}

// Each package has its place on the architecture page, by itself or with the one above it.
func TestArchitecturePackages(t *testing.T) {
	text := page(t, architecture)
	for name := range packages(t) {
		under, isInternal := strings.CutPrefix(name, "internal/")
		top, _, _ := strings.Cut(under, "/")
		if isInternal && !strings.Contains(text, "(../../internal/"+top) {
			t.Errorf("%s does not name %s: add it to the table of packages", architecture, name)
		}
	}
}

// A package imports at most eight of ours, the daemon aside, which wires them all.
func TestArchitectureFanOut(t *testing.T) {
	for name, imports := range packages(t) {
		if len(imports) > 8 && name != "internal/daemon" {
			t.Errorf("%s imports %d packages of ours, %q: move an idea of it into a package of its own", name, len(imports), imports)
		}
	}
}

// An interface has at most four methods.
func TestArchitectureInterfaces(t *testing.T) {
	eachSource(t, parser.SkipObjectResolution, func(dir string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok && len(i.Methods.List) > 4 {
				t.Errorf("%s: an interface has %d methods: split it by its users", dir, len(i.Methods.List))
			}
			return true
		})
	})
}

// named resolves the short names in one part of a chain.
func named(part string, imports map[string][]string) (list []string) {
	for name := range strings.SplitSeq(part, ",") {
		name = strings.TrimSpace(name)
		if _, ok := imports["internal/"+name]; ok {
			name = "internal/" + name
		}
		if _, ok := imports[name]; ok {
			list = append(list, name)
		}
	}
	return list
}

// packages maps each package of the module to those that it imports, tests aside.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	const module = "github.com/drawbridge/drawbridge/"
	imports := map[string][]string{}
	eachSource(t, parser.ImportsOnly, func(dir string, file *ast.File) {
		list := imports[dir]
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if ours, ok := strings.CutPrefix(name, module); ok && !slices.Contains(list, ours) {
				list = append(list, ours)
			}
		}
		imports[dir] = list
	})
	return imports
}

// eachSource parses the Go files of the module, tests aside.
func eachSource(t *testing.T, mode parser.Mode, f func(dir string, file *ast.File)) {
	t.Helper()
	for _, top := range []string{"internal", "cmd", "checkpassword", "policyd", "milter"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
			if err == nil {
				f(dir, file)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
