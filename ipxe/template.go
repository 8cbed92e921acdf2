package ipxe

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/template"
)

// maxScript bounds a template and its output. iPXE reads scripts line by line; the bound protects us.
const maxScript = 64 << 10

var scriptName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}\.ipxe$`)

// A Template is an operator's script: Go's text/template, filled in with a Page.
type Template struct {
	name string
	tmpl *template.Template
}

// A Page has the fields that a template can use.
type Page struct {
	Action       string // agent, local or wait
	Script       string // the built-in script for the machine, without its first line
	Kernel       string // URL, for agent
	Initrd       string // URL, for agent
	Args         string // kernel arguments, for agent
	Again        string // URL that asks for the script anew
	Reason       string // why the machine boots this, for an echo
	MAC          string
	UUID         string
	Manufacturer string
	Product      string
	Serial       string
	Arch         string // iPXE's word: i386, x86_64, arm64
	Platform     string // pcbios or efi
}

// LoadTemplate reads a template from a directory and tries it on each action, for a BIOS and an EFI machine.
func LoadTemplate(dir, name string) (*Template, error) {
	if !scriptName.MatchString(name) || strings.Contains(name, "..") {
		return nil, fmt.Errorf("%s: want the name of a file in %s, of small letters, digits, "+
			"dots and hyphens, that ends in .ipxe", quoted(name), dir)
	}
	path := filepath.Join(dir, name)
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular() || st.Size() > maxScript:
		return nil, fmt.Errorf("%s: want a regular file of at most %d KiB", path, maxScript>>10)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := parseTemplate(name, string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func parseTemplate(name, text string) (*Template, error) {
	tmpl, err := template.New(name).Parse(text)
	if err != nil {
		return nil, err
	}
	t := &Template{name, tmpl}
	server := netip.MustParseAddrPort("192.0.2.1:8080")
	for _, p := range []Params{
		{
			MAC: "52:54:00:12:34:56", Manufacturer: "Vendor", Product: "Model", Serial: "S1", Arch: "i386",
			Platform: "pcbios",
		},
		{
			MAC: "52:54:00:12:34:56", Manufacturer: "Vendor", Product: "Model", Serial: "S1", Arch: "x86_64",
			Platform: "efi",
		},
	} {
		for _, b := range []Boot{
			{
				Action:   Agent,
				Kernel:   "http://192.0.2.1:8080/k",
				Initrd:   "http://192.0.2.1:8080/i",
				Template: t,
			},
			{Action: Local, Template: t},
			{Action: Wait, Template: t},
		} {
			if _, err := Script(server, p, b); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// fill writes the script of a machine.
func (t *Template) fill(server netip.AddrPort, p Params, b Boot, plain string) ([]byte, error) {
	page := Page{
		Action: string(b.Action),
		Script: strings.TrimPrefix(plain, magic),
		Again:  ScriptURL(server),
		Reason: consoleText(b.Reason),
		// Anybody can write what SMBIOS says, so it must stay text.
		MAC: p.MAC, UUID: p.UUID, Manufacturer: consoleText(p.Manufacturer), Product: consoleText(p.Product),
		Serial: consoleText(p.Serial),
		Arch:   p.Arch, Platform: p.Platform,
	}
	if b.Action == Agent {
		page.Kernel, page.Initrd, page.Args = b.Kernel, b.Initrd, strings.Join(agentArgs(p, b.Args), " ")
	}
	out := limited{most: maxScript}
	if err := t.tmpl.Execute(&out, page); err != nil {
		return nil, err
	}
	return out.Bytes(), checkScript(out.String())
}

// checkScript finds mistakes that end a script early. A goto without its label does, and on a BIOS the disk
// boots then.
func checkScript(s string) error {
	if !strings.HasPrefix(s, magic) {
		return fmt.Errorf("begins with %s: a script's first line is %q", quoted(s), strings.TrimSpace(magic))
	}
	words := strings.Fields(s)
	for i, w := range words[:len(words)-1] {
		if label := words[i+1]; w == "goto" && !strings.Contains(label, "${") &&
			!strings.Contains(s, "\n:"+label+"\n") {
			return fmt.Errorf("goto %s: there is no line :%s", label, label)
		}
	}
	return nil
}

// limited is a buffer with a bound; writing beyond it is an error.
type limited struct {
	bytes.Buffer
	most int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > l.most {
		return 0, errors.New("the script becomes too long")
	}
	return l.Buffer.Write(p)
}
