package ipxe

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// plane serves a boot plane whose only ramdisk is amd64, and returns its base URL and the observed requests.
func plane(t *testing.T, decide Decider) (base string, observed chan Request) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"vmlinuz": "kernel of amd64", "initrd": "initrd of amd64"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	observed = make(chan Request, 100)
	srv := httptest.NewServer(Handler(Config{
		Decide: decide,
		Ramdisk: func(goarch, name string) (string, bool) {
			return filepath.Join(dir, name), goarch == "amd64"
		},
		Observe: func(r Request) { observed <- r },
		Log:     slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(srv.Close)
	return srv.URL, observed
}

func do(t *testing.T, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func waiting(context.Context, Params, netip.AddrPort) Boot { return Boot{Action: Wait} }

func TestPathsOutsideTheMap(t *testing.T) {
	base, _ := plane(t, waiting)
	for _, p := range []string{
		"/", "/nbp", "/nbp/", "/nbp/x", "/nbpsnponly.efi", "/nbp/../handler.go", "/nbp/%2e%2e/snponly.efi",
		"//snponly.efi",
		"/ramdisk/", "/ramdisk/amd64/", "/ramdisk/amd64/passwd", "/ramdisk/../vmlinuz",
		"/ramdisk/arm64/vmlinuz", "/ramdisk/amd64/../amd64/vmlinuz",
		"/boot.ipxe/", "/pxelinux.cfg/default",
	} {
		resp, body := do(t, "GET", base+p)
		if resp.StatusCode != http.StatusNotFound || strings.Count(body, "\n") != 1 {
			t.Errorf("GET %s = %d %q, want 404 and one line", p, resp.StatusCode, body)
		}
	}
	if resp, _ := do(t, "POST", base+"/boot.ipxe?"+fromROM); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST = %d, want 405", resp.StatusCode)
	}
}

func TestProgramsOverHTTP(t *testing.T) {
	base, observed := plane(t, waiting)
	for _, name := range NBPs() {
		want, _ := NBP(name)
		for _, p := range []string{"/" + name, NBPPath(name)} {
			head, _ := do(t, "HEAD", base+p)
			if head.StatusCode != 200 || head.ContentLength != int64(len(want)) ||
				head.Header.Get("ETag") == "" {
				t.Errorf("HEAD %s = %d, length %d, ETag %q; want 200, %d and an ETag", p, head.StatusCode,
					head.ContentLength, head.Header.Get("ETag"), len(want))
			}
			<-observed
			resp, body := do(t, "GET", base+p)
			if !bytes.Equal([]byte(body), want) || resp.ContentLength != int64(len(want)) {
				t.Errorf("GET %s: %d bytes, Content-Length %d, want %d", p, len(body), resp.ContentLength,
					len(want))
			}
			if r := <-observed; r.Status != 200 || r.Sent != int64(len(want)) || r.Want != r.Sent ||
				!r.Remote.IsValid() {
				t.Errorf("GET %s was observed as %+v", p, r)
			}
			if resp, _ := do(t, "GET", base+p, "If-None-Match",
				head.Header.Get("ETag")); resp.StatusCode != http.StatusNotModified {
				t.Errorf("GET %s with its ETag = %d, want 304", p, resp.StatusCode)
			}
			<-observed
		}
	}
}

func TestRamdiskRange(t *testing.T) {
	base, _ := plane(t, waiting)
	resp, body := do(t, "GET", base+RamdiskPath("amd64", "initrd"), "Range", "bytes=10-")
	if resp.StatusCode != http.StatusPartialContent || body != "amd64" {
		t.Errorf("range = %d %q, want 206 %q", resp.StatusCode, body, "amd64")
	}
	if resp, body := do(t, "GET", base+RamdiskPath("amd64", "vmlinuz")); body != "kernel of amd64" ||
		resp.ContentLength != 15 {
		t.Errorf("vmlinuz = %q, Content-Length %d", body, resp.ContentLength)
	}
	if resp, _ := do(t, "GET", base+RamdiskPath("amd64", "vmlinuz"), "Range",
		"bytes=99-"); resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("range past the end = %d, want 416", resp.StatusCode)
	}
	if _, body := do(t, "GET", base+RamdiskPath("arm64", "vmlinuz")); !strings.Contains(body,
		"pxectl ramdisk build") {
		t.Errorf("a missing ramdisk says %q, want the next move", body)
	}
}

func TestBootScriptOverHTTP(t *testing.T) {
	base, observed := plane(t, func(_ context.Context, p Params, server netip.AddrPort) Boot {
		return Boot{
			Action: Agent,
			Reason: p.UUID,
			Args:   []string{"pxectl.url=https://" + server.Addr().String() + ":8443"},
		}
	})
	resp, body := do(t, "GET", base+"/boot.ipxe?"+fromROM)
	if resp.StatusCode != 200 || resp.ContentLength != int64(len(body)) ||
		resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("GET /boot.ipxe = %d, Content-Length %d of %d", resp.StatusCode, resp.ContentLength,
			len(body))
	}
	kernel := fmt.Sprintf("\nkernel %s/ramdisk/amd64/vmlinuz initrd=rd BOOTIF=01-52-54-00-aa-00-01 "+
		"console=tty0 console=ttyS0,115200n8 quiet pxectl.url=https://127.0.0.1:8443 ||", base)
	if !strings.HasPrefix(body, "#!ipxe\n") || !strings.Contains(body, kernel) {
		t.Errorf("boot script lacks %q:\n%s", kernel, body)
	}
	r := <-observed
	if r.Params == nil || r.Params.MAC != "52:54:00:aa:00:01" || r.Boot == nil || r.Boot.Action != Agent {
		t.Errorf("observed %+v, want the machine and the answer", r)
	}
	if resp, body := do(t, "GET", base+"/boot.ipxe?mac=x"); resp.StatusCode != http.StatusBadRequest ||
		strings.Count(body, "\n") != 1 {
		t.Errorf("GET /boot.ipxe?mac=x = %d %q, want 400 and one line", resp.StatusCode, body)
	}
	for _, p := range []string{"/autoexec.ipxe", "/nbp/autoexec.ipxe", "/start.ipxe"} {
		if _, body := do(t, "GET", base+p); !strings.Contains(body,
			base+"/boot.ipxe?mac=${netX/mac:hexhyp}&") {
			t.Errorf("GET %s does not name the address that it was asked at:\n%s", p, body)
		}
	}
}

func TestBrokenDecisions(t *testing.T) {
	base, observed := plane(t, func(_ context.Context, p Params, _ netip.AddrPort) Boot {
		if p.Serial == "panic" {
			panic("decider")
		}
		return Boot{Action: Agent, Args: []string{"two words"}}
	})
	if resp, _ := do(t, "GET",
		base+"/boot.ipxe?mac=52-54-00-aa-00-01&serial=panic"); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("after a panic = %d, want 500", resp.StatusCode)
	}
	<-observed
	if resp, body := do(t, "GET", base+"/boot.ipxe?mac=52-54-00-aa-00-01"); resp.StatusCode != 200 ||
		!strings.Contains(body, "sleep 15\n") || strings.Contains(body, "two words") {
		t.Errorf("an answer that cannot be a script = %d\n%s", resp.StatusCode, body)
	}
}
