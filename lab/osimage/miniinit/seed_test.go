package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const meta = "instance-id: i-1\nlocal-hostname: web-1\n"

func TestParseSeed(t *testing.T) {
	vendor := "#cloud-config\nphone_home:\n  url: http://10.0.0.1:8080/ph/$INSTANCE_ID\n  post: [instance_id, hostname]\n  tries: 5\n"
	for _, tt := range []struct {
		name                        string
		meta, user, vendor, network string
		want                        Seed
	}{
		{"bare", meta, "", "", "", Seed{InstanceID: "i-1", Hostname: "web-1", FQDN: "web-1"}},
		{"phone home in vendor-data", meta, "#cloud-config\nruncmd: [ls]\n", vendor, "", Seed{
			InstanceID: "i-1", Hostname: "web-1", FQDN: "web-1",
			PhoneHome: &PhoneHome{
				URL: "http://10.0.0.1:8080/ph/i-1", Post: []string{"instance_id", "hostname"}, Tries: 5,
			},
		}},
		{
			"user-data counts more", meta,
			"#cloud-config\nfqdn: db-1.example.org\nphone_home: {url: 'http://x/', post: all}\n", vendor, "",
			Seed{
				InstanceID: "i-1", Hostname: "db-1", FQDN: "db-1.example.org",
				PhoneHome: &PhoneHome{URL: "http://x/", Post: postFields, Tries: 10},
			},
		},
		{
			"a script as user-data is passed over", meta, "#!/bin/sh\nhostname x\n", "", "",
			Seed{InstanceID: "i-1", Hostname: "web-1", FQDN: "web-1"},
		},
		{
			"network by MAC", meta, "", "",
			"version: 2\nethernets:\n  a:\n    match: {macaddress: '52:54:00:AA:00:01'}\n    dhcp4: true\n",
			Seed{
				InstanceID: "i-1",
				Hostname:   "web-1",
				FQDN:       "web-1",
				Network:    []Interface{{MAC: "52:54:00:aa:00:01", DHCP: true}},
			},
		},
		{
			"static network", meta, "", "",
			"network:\n  version: 2\n  ethernets:\n    a:\n      addresses: [10.0.0.5/24]\n      routes: [{to: default, via: 10.0.0.1}]\n",
			Seed{
				InstanceID: "i-1", Hostname: "web-1", FQDN: "web-1",
				Network: []Interface{
					{
						Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")},
						Gateway:   netip.MustParseAddr("10.0.0.1"),
					},
				},
			},
		},
	} {
		got, err := parseSeed([]byte(tt.meta), []byte(tt.user), []byte(tt.vendor), []byte(tt.network))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmpopts.IgnoreFields(Seed{}, "Warnings"),
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestSeedErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		fs   fstest.MapFS
		want string
	}{
		{"no meta-data", fstest.MapFS{"user-data": {}}, "meta-data"},
		{"no user-data", fstest.MapFS{"meta-data": {Data: []byte(meta)}}, "user-data"},
		{
			"no instance-id", fstest.MapFS{
				"meta-data": {Data: []byte("local-hostname: a\n")},
				"user-data": {},
			}, "instance-id",
		},
		{
			"hostname with an escape",
			fstest.MapFS{
				"meta-data": {Data: []byte("instance-id: a\nlocal-hostname: \"a\\e[2J\"\n")},
				"user-data": {},
			},
			"hostname",
		},
		{
			"network version 1",
			fstest.MapFS{
				"meta-data": {Data: []byte(meta)}, "user-data": {},
				"network-config": {Data: []byte("version: 1\n")},
			},
			"version 1",
		},
		{
			"huge file",
			fstest.MapFS{"meta-data": {Data: make([]byte, maxSeedFile+1)}, "user-data": {}},
			"at most",
		},
	} {
		if _, err := readSeed(tt.fs); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: readSeed = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestDriverless(t *testing.T) {
	card := func(class, id string) fstest.MapFS {
		vendor, device, _ := strings.Cut(id, ":")
		return fstest.MapFS{
			"class": {Data: []byte(class + "\n")}, "vendor": {Data: []byte("0x" + vendor + "\n")},
			"device": {Data: []byte("0x" + device + "\n")},
		}
	}
	for _, tt := range []struct {
		name    string
		devices map[string]fstest.MapFS
		driven  string
		want    string
	}{
		{"none", nil, "", ""},
		{
			"a card with its driver, and a disk without",
			map[string]fstest.MapFS{
				"0000:00:02.0": card("0x020000", "1af4:1000"),
				"0000:00:03.0": card("0x010802", "1b36:0010"),
			},
			"0000:00:02.0", "",
		},
		{
			"a card without one",
			map[string]fstest.MapFS{"0000:00:02.0": card("0x020000", "8086:100e")},
			"",
			"; this image's kernel has no driver for the card 0000:00:02.0 [8086:100e]",
		},
	} {
		pci := fstest.MapFS{}
		for name, files := range tt.devices {
			for file, f := range files {
				pci[name+"/"+file] = f
			}
		}
		if tt.driven != "" {
			pci[tt.driven+"/driver/uevent"] = &fstest.MapFile{}
		}
		if got := driverless(pci); got != tt.want {
			t.Errorf("%s: driverless = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzSeed(f *testing.F) {
	f.Add(meta, "#cloud-config\nphone_home: {url: 'http://x/', post: all, tries: x}\n", "",
		"version: 2\nethernets: {a: {dhcp4: true}}\n")
	f.Fuzz(func(t *testing.T, meta, user, vendor, network string) {
		if len(meta)+len(user)+len(vendor)+len(network) > 1<<12 {
			return
		}
		s, err := parseSeed([]byte(meta), []byte(user), []byte(vendor), []byte(network))
		if err == nil && (s.InstanceID == "" || s.Hostname == "" ||
			strings.ContainsAny(s.Hostname, "\n\x1b")) {
			t.Errorf("accepted %+v", s)
		}
	})
}

func TestPhoneHome(t *testing.T) {
	calls := 0
	var form url.Values
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls++; calls < 3 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		_ = r.ParseForm()
		form = r.PostForm
	}))
	defer srv.Close()
	s := Seed{
		InstanceID: "i-1",
		Hostname:   "web-1",
		FQDN:       "web-1.lan",
		PhoneHome:  &PhoneHome{URL: srv.URL + "/ph", Post: postFields, Tries: 3},
	}
	var slept time.Duration
	if _, err := phoneHome(context.Background(), s, map[string]string{"ed25519": "ssh-ed25519 AAAA"},
		func(d time.Duration) { slept += d }); err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"pub_key_dsa": {"N/A"}, "pub_key_rsa": {"N/A"}, "pub_key_ecdsa": {"N/A"},
		"pub_key_ed25519": {"ssh-ed25519 AAAA"},
		"instance_id":     {"i-1"}, "hostname": {"web-1"}, "fqdn": {"web-1.lan"},
	}
	if diff := cmp.Diff(want, form); diff != "" || slept != 6*time.Second {
		t.Errorf("slept %v, posted (-want +got):\n%s", slept, diff)
	}
	calls = 0
	s.PhoneHome.Tries = 2
	if _, err := phoneHome(context.Background(), s, nil, func(time.Duration) {}); err == nil ||
		!strings.Contains(err.Error(), "after 2 tries: 503") {
		t.Errorf("phoneHome with two tries = %v, want it to give up", err)
	}
}

func TestHostKeysStay(t *testing.T) {
	dir := t.TempDir()
	first, err := hostKeys(dir)
	if err != nil || !strings.HasPrefix(first["ed25519"], "ssh-ed25519 ") {
		t.Fatalf("hostKeys = %v, %v", first, err)
	}
	if again, err := hostKeys(dir); err != nil || again["ed25519"] != first["ed25519"] {
		t.Errorf("the second boot has the key %v, %v; want the first one %v", again, err, first)
	}
}
