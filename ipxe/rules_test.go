package ipxe

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRulesFor(t *testing.T) {
	rules := Rules{
		{Machine: "lab-*", Local: SANBoot},
		{Machine: "52:54:00:*", Args: []string{"console=ttyS1,115200n8"}},
		{Vendor: "supermicro*", Model: "*/x11?PW", NBP: NativeX64},
		{Vendor: "Supermicro", NBP: BIOS, Local: Silence},
		{Script: "all.ipxe"},
		{Script: "never.ipxe", Args: []string{"never"}},
	}
	for _, tt := range []struct {
		name    string
		subject Subject
		want    Choice
	}{
		{"nothing known", Subject{}, Choice{Args: []string{"never"}, Script: "all.ipxe"}},
		{
			"by MAC",
			Subject{Names: []string{"m1", "52:54:00:12:34:56"}},
			Choice{Args: []string{"console=ttyS1,115200n8"}, Script: "all.ipxe"},
		},
		{
			"several rules, the first of each wins",
			Subject{Names: []string{"lab-7"}, Vendor: "Supermicro", Model: "A/X11DPW"},
			Choice{
				NBPs: []string{NativeX64, BIOS}, Args: []string{"never"}, Local: SANBoot, Script: "all.ipxe",
			},
		},
		{
			"vendor without the model",
			Subject{Names: []string{"web"}, Vendor: "Supermicro", Model: "X12"},
			Choice{NBPs: []string{BIOS}, Args: []string{"never"}, Local: Silence, Script: "all.ipxe"},
		},
	} {
		if diff := cmp.Diff(tt.want, rules.For(tt.subject)); diff != "" {
			t.Errorf("%s: For(%+v) (-want +got):\n%s", tt.name, tt.subject, diff)
		}
	}
}

func TestChoiceNBP(t *testing.T) {
	for _, tt := range []struct {
		name string
		nbps []string
		arch uint16
		ipxe bool
		want string
	}{
		{"no rule", nil, 7, false, X64},
		{"x64 gets what the rule names", []string{NativeX64}, 7, false, NativeX64},
		{"over HTTP too", []string{NativeX64}, 16, false, NativeX64},
		{"a BIOS cannot run it", []string{NativeX64}, 0, false, BIOS},
		{"the first that runs here", []string{NativeX64, Native}, 0, false, Native},
		{"a rule overrides what an iPXE ROM gets", []string{BIOS}, 0, true, BIOS},
		{"nothing runs there", []string{NativeX64}, 6, false, ""},
	} {
		if got, ok := (Choice{NBPs: tt.nbps}).NBP(tt.arch, tt.ipxe); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: Choice{%v}.NBP(%d, %v) = %q, %v, want %q", tt.name, tt.nbps, tt.arch, tt.ipxe, got,
				ok, tt.want)
		}
	}
}

func TestRuleCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule Rule
		want string // part of the error; "" for none
	}{
		{
			"all", Rule{
				Machine: "m[12]", Vendor: "HPE", Model: "ProLiant DL*", NBP: X64,
				Args: []string{"console=ttyS1"}, Local: Exit,
			}, "",
		},
		{"script only", Rule{Script: "x.ipxe"}, ""},
		{"nothing set", Rule{Vendor: "HPE"}, "sets nothing (have: nbp, args, local, script)"},
		{"pattern", Rule{Model: "[", Local: Exit}, `model: "[" is no pattern`},
		{
			"program",
			Rule{NBP: "grub.efi"},
			`nbp: "grub.efi" (have: ipxe-amd64.efi, ipxe-arm64.efi, ipxe.pxe, snponly.efi, undionly.kpxe)`,
		},
		{"two words", Rule{Args: []string{"a b"}}, `args: "a b" is not one word`},
		{"a setting", Rule{Args: []string{"a=${uuid}"}}, "is not one word"},
		{"local", Rule{Local: "disk"}, `local: "disk" (have: exit, sanboot, silence)`},
	} {
		err := tt.rule.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Check() = %v, want %q", tt.name, err, tt.want)
		}
	}
}

func FuzzRuleMatches(f *testing.F) {
	f.Add("HPE*", "HPE ProLiant")
	f.Add("[", "[")
	f.Add("a/b*", "A/B/c")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if !matches("*", text) {
			t.Errorf("* does not match %q", text)
		}
		if err := (Rule{Vendor: pattern, Local: Exit}).Check(); err != nil && matches(pattern, text) {
			t.Errorf("pattern %q is refused (%v) and matches %q", pattern, err, text)
		}
	})
}
