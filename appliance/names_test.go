package appliance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pin/tftp/v3"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
	"github.com/pxectl/pxectl/tftpd"
)

// runningPlane returns a boot plane whose engine runs, so that it writes the timeline.
func runningPlane(t *testing.T) bootPlane {
	t.Helper()
	e := newEngine(t)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran })
	return bootPlane{engine: e, addresses: &addresses{list: neighbourTable}, http: 8080}
}

// texts waits for n events of a kind and returns the texts of all.
func texts(t *testing.T, p bootPlane, kind inventory.EventKind, n int) (all []string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		events, err := p.engine.Events(0, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		all = nil
		for _, e := range events {
			if e.Kind == kind {
				all = append(all, e.Text)
			}
		}
		if len(all) >= n {
			return all
		}
	}
	t.Fatalf("%d events of kind %s, want %d: %q", len(all), kind, n, all)
	return nil
}

// Some BIOS ROMs send bytes of the next DHCP option behind the boot file's name.
func TestNamesWithRubbishAreServed(t *testing.T) {
	plane := runningPlane(t)
	s, err := tftpd.Listen(tftpd.Config{
		Addr: "127.0.0.1:0", Open: plane.file, Done: plane.sawTFTP, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	defer func() { cancel(); <-ran }()
	client, err := tftp.NewClient(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) ([]byte, error) {
		from, err := client.Receive(name, "octet")
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		_, err = from.WriteTo(&b)
		return b.Bytes(), err
	}
	want, _ := ipxe.NBP(ipxe.BIOS)
	for _, behind := range []string{"a\x11", "R\x06\x01\x04", "\xff"} {
		if got, err := get(ipxe.BIOS + behind); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s%q: %d bytes, %v; want its %d", ipxe.BIOS, behind, len(got), err, len(want))
		}
	}
	if got, err := get(ipxe.BIOS + ".old"); err == nil {
		t.Errorf("another name was served: %d bytes", len(got))
	}
	if all := texts(t, plane, "tftp", 4); !strings.Contains(strings.Join(all, "\n"),
		`undionly.kpxe (asked for with rubbish behind the name, "undionly.kpxea\x11")`) {
		t.Errorf("the timeline says %q", all)
	}
}

// UEFI HTTP boot asks for paths with // in them, and follows no redirect.
func TestUncleanPathsAreServed(t *testing.T) {
	plane := runningPlane(t)
	images := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "images: ", r.URL.Path)
	})
	srv := httptest.NewServer(plane.web(images, slog.New(slog.DiscardHandler)))
	defer srv.Close()
	firmware := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	program, _ := ipxe.NBP(ipxe.X64)
	for path, want := range map[string]string{
		"/nbp/snponly.efi":              string(program),
		"//nbp/snponly.efi":             string(program),
		"/nbp//snponly.efi":             string(program),
		"/./nbp/./snponly.efi":          string(program),
		"/x/../nbp/snponly.efi":         string(program),
		"//nbp%2fsnponly.efi":           string(program),
		"//images/1234/data":            "images: /images/1234/data",
		"/images":                       "images: /images",
		"/images/":                      "images: /images/",
		"//images//":                    "images: /images/",
		"/images/../../../etc/passwd":   "",
		"/%2e%2e/%2e%2e/etc/passwd":     "",
		"/images/%2e%2e/../etc/passwd":  "",
		"//ramdisk/../../../etc/passwd": "",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := firmware.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			status := http.StatusOK
			if want == "" {
				status = http.StatusNotFound
			}
			if resp.StatusCode != status || method == http.MethodGet && want != "" && string(body) != want {
				t.Errorf("%s %s = %d, %d bytes; want %d, %d", method, path, resp.StatusCode, len(body),
					status, len(want))
			}
		}
	}
	if all := texts(t, plane, "http", 2); !slices.Contains(all, "GET /nbp/snponly.efi: 200") ||
		!slices.Contains(all, "HEAD /nbp/snponly.efi: 200") {
		t.Errorf("the timeline says %q", all)
	}
}
