package ipxe

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTemplateMakesTheScript(t *testing.T) {
	tmpl, err := parseTemplate("x.ipxe",
		"#!ipxe\n{{if eq .Action \"agent\"}}sleep 30\n{{end}}echo {{.Product}}\n{{.Script}}")
	if err != nil {
		t.Fatal(err)
	}
	p := Params{MAC: "52:54:00:aa:00:01", Product: "Model\n${x} || reboot", Arch: "x86_64", Platform: "efi"}
	plain := Boot{Action: Agent, Kernel: "http://h/k", Initrd: "http://h/i", Args: []string{"a=b"}}
	want, err := Script(server, p, plain)
	if err != nil {
		t.Fatal(err)
	}
	plain.Template = tmpl
	got, err := Script(server, p, plain)
	if want := "#!ipxe\nsleep 30\necho Model {x} reboot\n" +
		strings.TrimPrefix(string(want), "#!ipxe\n"); err != nil || string(got) != want {
		t.Errorf("script = %v\n%s\nwant\n%s", err, got, want)
	}
	if got, err := Script(server, p, Boot{Action: Local, Template: tmpl}); err != nil ||
		strings.Contains(string(got), "sleep") || !strings.Contains(string(got), "exit 1") {
		t.Errorf("local script = %v\n%s", err, got)
	}
}

func TestLoadTemplateRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ name, file, text, want string }{
		{"a path", "../x.ipxe", "", "want the name of a file in"},
		{"capitals", "X.ipxe", "", "want the name of a file in"},
		{"another ending", "x.sh", "", "that ends in .ipxe"},
		{"not there", "none.ipxe", "", "no such file"},
		{"no template", "a.ipxe", "#!ipxe\n{{.Script", "a.ipxe"},
		{"unknown field", "b.ipxe", "#!ipxe\n{{.Kernal}}", "Kernal"},
		{
			"fails on one action only", "c.ipxe", "#!ipxe\n{{if eq .Action \"wait\"}}{{.Nothing}}{{end}}",
			"Nothing",
		},
		{"not a script", "d.ipxe", "{{.Script}}", `a script's first line is "#!ipxe"`},
		{"lost label", "e.ipxe", "#!ipxe\ngoto out\n", "goto out: there is no line :out"},
		{"too long", "f.ipxe", "#!ipxe\n{{range 99999}}{{$.Script}}{{end}}", "the script becomes too long"},
	} {
		if tt.text != "" {
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := LoadTemplate(dir, tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: LoadTemplate(%q) error = %v, want one with %q", tt.name, tt.file, err, tt.want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("#!ipxe\n{{.Script}}", "Model", "S1")
	f.Add("#!ipxe\necho {{.Product}} {{.Serial}}\n{{.Script}}", "a\nreboot", "${x}")
	f.Fuzz(func(t *testing.T, text, product, serial string) {
		if strings.Contains(text, "range") || strings.Contains(text, "template") {
			t.Skip("an operator's loop is as long as the operator wants")
		}
		tmpl, err := parseTemplate("f.ipxe", text)
		if err != nil {
			return
		}
		p := Params{MAC: "52:54:00:aa:00:01", Product: cleanText(product), Serial: cleanText(serial)}
		if s, err := Script(server, p, Boot{Action: Local, Template: tmpl}); err == nil &&
			!strings.HasPrefix(string(s), "#!ipxe\n") {
			t.Errorf("template %q made %q", text, s)
		}
	})
}
