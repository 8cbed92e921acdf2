package bug

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// recovering are what a goroutine may begin with: the functions here, and a package's own that does the same.
var recovering = map[string]bool{"bug.Recover": true, "bug.Return": true, "recovered": true}

// TestEveryGoroutineRecovers reads the packages whose goroutines handle what comes from outside. A goroutine
// there is a function literal, or a method of the same package, that defers one of recovering before it does
// anything but declare and defer; or what bug.Recovering makes.
func TestEveryGoroutineRecovers(t *testing.T) {
	seen := 0
	methods := map[string]*ast.BlockStmt{}
	for _, dir := range []string{
		"console", "deploy", "timeline", "api", "images", "appliance", "dhcpd",
		"tftpd", "ipxe", "power/ipmi", "internal/observe",
	} {
		err := filepath.WalkDir(filepath.Join("../..",
			dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") ||
				strings.HasSuffix(path, "_test.go") || strings.Contains(path, "apitest") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
					methods[filepath.Dir(path)+"."+f.Name.Name] = f.Body
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if begun := goroutine(n); begun != nil {
					seen++
					var body *ast.BlockStmt
					switch f := begun.(type) {
					case *ast.CallExpr:
						if name(f.Fun) == "bug.Recovering" {
							return true
						}
					case *ast.FuncLit:
						body = f.Body
					case *ast.SelectorExpr:
						body = methods[filepath.Dir(path)+"."+f.Sel.Name]
					}
					if body == nil || !recovers(body) {
						t.Errorf("%s: this goroutine does not recover where it begins",
							files.Position(n.Pos()))
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 10 {
		t.Errorf("%d goroutines were found, want more: is the source where this test looks?", seen)
	}
}

// goroutine is what a statement starts beside itself: go f(), x.Go(f) of a WaitGroup or an errgroup, and the
// callbacks of time.AfterFunc and context.AfterFunc.
func goroutine(n ast.Node) ast.Expr {
	switch n := n.(type) {
	case *ast.GoStmt:
		return n.Call.Fun
	case *ast.CallExpr:
		s, ok := n.Fun.(*ast.SelectorExpr)
		switch {
		case !ok:
		case s.Sel.Name == "Go" && len(n.Args) == 1:
			return n.Args[0]
		case s.Sel.Name == "AfterFunc" && len(n.Args) == 2:
			return n.Args[1]
		}
	}
	return nil
}

func recovers(body *ast.BlockStmt) bool {
	for _, s := range body.List {
		switch s := s.(type) {
		case *ast.DeclStmt:
		case *ast.DeferStmt:
			if recovering[name(s.Call.Fun)] {
				return true
			}
		default:
			return false
		}
	}
	return false
}

func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return fmt.Sprintf("%s.%s", name(e.X), e.Sel.Name)
	}
	return ""
}
