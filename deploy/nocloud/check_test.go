package nocloud

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

func packed(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close()
	return b.Bytes()
}

func utf16le(s string) []byte {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return b
}

const config = "#cloud-config\nusers:\n  - name: me\n"

// want is a part of the error; "" means none. onlyUs: cloud-init accepts the header, and finds the mistake
// later.
var userDatas = []struct {
	name   string
	data   []byte
	want   string
	onlyUs bool
}{
	{name: "cloud-config", data: []byte(config)},
	{
		name: "cloud-config with Windows' ends of lines",
		data: []byte("#cloud-config\r\nusers:\r\n  - name: me\r\n"),
	},
	{name: "header in capitals, behind an empty line", data: []byte("\n \n#Cloud-Config\nusers: []\n")},
	{name: "header alone", data: []byte("#cloud-config\n")},
	{name: "a key twice", data: []byte("#cloud-config\na: 1\na: 2\n")},
	{name: "anchors", data: []byte("#cloud-config\na: &x [1]\nb: *x\n")},
	{
		name: "literal block with brackets",
		data: []byte("#cloud-config\nwrite_files:\n- path: /x\n  content: |\n" +
			"    a {{{ [[ }\n    ----------\n"),
	},
	{name: "script", data: []byte("#!/bin/sh\necho hi\n")},
	{name: "script that is no YAML", data: []byte("#!/usr/bin/perl\n%h = (a => [);\n")},
	{name: "include", data: []byte("#include\nhttp://a/b\n")},
	{name: "boothook", data: []byte("#cloud-boothook\n#!/bin/sh\n")},
	{name: "jinja", data: []byte("## template: jinja\n#cloud-config\nhostname: {{ v1.x }}\n")},
	{
		name: "archive",
		data: []byte("#cloud-config-archive\n- type: text/x-shellscript\n  content: |\n    #!/bin/sh\n"),
	},
	{
		name: "MIME",
		data: []byte("Content-Type: multipart/mixed; boundary=\"X\"\nMIME-Version: 1.0\n\n" +
			"--X\nContent-Type: text/cloud-config\n\n{}\n--X--\n"),
	},
	{name: "gzip", data: packed(config)},
	{name: "no header", data: []byte("users:\n  - name: me\n"), want: `begins with "users:"`},
	{name: "late header", data: []byte("# mine\n#cloud-config\nusers: []\n"), want: "must be the first one"},
	{name: "misspelt header", data: []byte("#cloudconfig\nusers: []\n"), want: `begins with "#cloudconfig"`},
	{name: "byte order mark", data: []byte("\ufeff" + config), want: "byte order mark"},
	{name: "UTF-16", data: utf16le(config), want: "UTF-16"},
	{name: "UTF-16 without a mark", data: utf16le(config)[2:], want: "bytes of zero"},
	{name: "Latin-1", data: []byte("#cloud-config\nname: J\xf6rg\n"), want: "not UTF-8"},
	{name: "broken YAML", data: []byte("#cloud-config\nusers: [a\n  b: c\n"), want: "YAML is broken"},
	{name: "tabs", data: []byte("#cloud-config\nusers:\n\t- name: me\n"), want: "YAML is broken"},
	{name: "a list", data: []byte("#cloud-config\n- a\n- b\n"), want: "not a list of `key: value`"},
	{name: "a word", data: []byte("#cloud-config\nhello\n"), want: "not a list of `key: value`"},
	{name: "two documents", data: []byte("#cloud-config\na: 1\n---\nb: 2\n"), want: "more than one document"},
	{name: "gzip without a header in it", data: packed("users: []\n"), want: `begins with "users: []"`},
	{name: "gzip, cut off", data: packed(config)[:20], want: "cut off", onlyUs: true},
	{
		name:   "gzip that unpacks to much",
		data:   packed("#!" + strings.Repeat("\n", MaxUnpacked)),
		want:   "unpacks to more than",
		onlyUs: true,
	},
	{
		name:   "jsonp that is no JSON",
		data:   []byte("#cloud-config-jsonp\n[{\n"),
		want:   "not JSON",
		onlyUs: true,
	},
	{
		name:   "an archive that is a mapping",
		data:   []byte("#cloud-config-archive\na: b\n"),
		want:   "not a list",
		onlyUs: true,
	},
	{
		name:   "MIME without a boundary",
		data:   []byte("Content-Type: multipart/mixed\n\n{}\n"),
		want:   "no boundary",
		onlyUs: true,
	},
	{
		name:   "brackets without end",
		data:   []byte("#cloud-config\na: " + strings.Repeat("[", 1<<19)),
		want:   "exceeded max depth",
		onlyUs: true,
	},
	{
		name:   "lists without end",
		data:   []byte("#cloud-config\n" + strings.Repeat("- ", 1<<18)),
		want:   "exceeded max depth",
		onlyUs: true,
	},
}

var networks = []struct {
	name   string
	data   string
	want   string
	onlyUs bool
}{
	{
		name: "version 2",
		data: "version: 2\nethernets:\n" +
			"  e:\n    match: {macaddress: \"52:54:00:12:34:56\"}\n    dhcp4: true\n",
	},
	{
		name: "version 1",
		data: "version: 1\nconfig:\n- type: physical\n  name: eth0\n" +
			"  mac_address: \"52:54:00:12:34:56\"\n  subnets: [{type: dhcp}]\n",
	},
	{name: "JSON", data: `{"version": 2, "ethernets": {}}`},
	{name: "garbage", data: "lorem ipsum", want: "not a list of `key: value`"},
	{name: "broken", data: "version: 2\nethernets: {a\n", want: "YAML is broken"},
	{name: "no version", data: "ethernets: {}\n", want: "version is missing"},
	{name: "version 3", data: "version: 3\n", want: "want the number 1 or 2"},
	{name: "a text for a version", data: "version: \"2\"\n", want: "want the number 1 or 2", onlyUs: false},
	{name: "netplan", data: "network:\n  version: 2\n  ethernets: {}\n", want: "below `network:`"},
	{name: "only a comment", data: "# nothing\n", want: "not a list of `key: value`"},
}

func TestCheckUserData(t *testing.T) {
	for _, c := range userDatas {
		got := ""
		if err := CheckUserData(c.data); err != nil {
			got = err.Error()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: CheckUserData = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCheckNetwork(t *testing.T) {
	for _, c := range networks {
		got := ""
		if err := CheckNetwork(c.data); err != nil {
			got = err.Error()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: CheckNetwork = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCheckKeys(t *testing.T) {
	for _, c := range []struct{ key, want string }{
		{key, ""},
		{key + " me@host", ""},
		{`from="10.0.0.0/8",no-pty ` + key, ""},
		{"ssh-ed25519", "SSH key 1: no public key"},
		{"hello", "SSH key 1: no public key"},
		{key + "\n" + key, "SSH key 1: more than one line"},
		{"-----BEGIN OPENSSH PRIVATE KEY-----", "SSH key 1: no public key"},
		{"", "SSH key 1: no public key"},
	} {
		got := ""
		if err := CheckKeys([]string{c.key}); err != nil {
			got = err.Error()
		}
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("CheckKeys(%q) = %q, want %q", c.key, got, c.want)
		}
	}
}

func TestCheckSizes(t *testing.T) {
	for _, c := range []struct {
		data    []byte
		network string
		keys    []string
		want    string
	}{
		{
			make([]byte, MaxUserData), strings.Repeat("n", MaxNetwork),
			[]string{strings.Repeat("k", MaxKeys)},
			"",
		},
		{make([]byte, MaxUserData+1), "", nil, "user-data: 1048577 bytes, at most 1048576"},
		{nil, strings.Repeat("n", MaxNetwork+1), nil, "network-config: 262145 bytes"},
		{nil, "", []string{strings.Repeat("k", MaxKeys), "k"}, "SSH keys: 65537 bytes"},
	} {
		got := ""
		if err := CheckSizes(c.data, c.network, c.keys); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("CheckSizes = %q, want %q", got, c.want)
		}
	}
}

// FuzzCheck: every input gets an answer, which quotes nothing that is long.
func FuzzCheck(f *testing.F) {
	for _, c := range userDatas {
		f.Add(c.data[:min(len(c.data), 1<<12)])
	}
	for _, c := range networks {
		f.Add([]byte(c.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		began := time.Now()
		defer func() {
			if took := time.Since(began); took > 5*time.Second && len(data) < 1<<16 {
				t.Errorf("%d bytes took %v", len(data), took)
			}
		}()
		for _, err := range []error{
			CheckUserData(data), CheckNetwork(string(data)),
			CheckKeys([]string{string(data)}),
		} {
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		}
	})
}
