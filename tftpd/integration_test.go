package tftpd

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

// Third-party clients on another host, over a virtual wire.

func rack(t *testing.T) (testnet.Host, chan Transfer) {
	t.Helper()
	testnet.Bridge(t, "10.88.1.1/24")
	h := testnet.NewHost(t, "client", "10.88.1.2/24", "52:54:00:00:01:02")
	_, done := serve(t, Config{})
	return h, done
}

func TestThirdPartyClients(t *testing.T) {
	testnet.Need(t, "ip")
	h, done := rack(t)
	for _, c := range []struct {
		name    string
		program string
		get     func(file, to string) *exec.Cmd
		missing string // what the client says about "file not found"
	}{
		{"curl", "curl", func(file, to string) *exec.Cmd {
			return h.Command("curl", "-sS", "--tftp-blksize", "1468", "-o", to, "tftp://10.88.1.1/"+file)
		}, "curl: (68)"}, // its code for "file not found on the server"
		{"curl without options", "curl", func(file, to string) *exec.Cmd {
			return h.Command("curl", "-sS", "--tftp-no-options", "-o", to, "tftp://10.88.1.1/"+file)
		}, "curl: (68)"}, // its code for "file not found on the server"
		{"tftp-hpa", "tftp", func(file, to string) *exec.Cmd {
			return h.Command("tftp", "-v", "-m", "binary", "10.88.1.1", "-c", "get", file, to)
		}, "file not found"},
		{"atftp", "atftp", func(file, to string) *exec.Cmd {
			return h.Command("atftp", "--option", "blksize 1468", "--option", "tsize 0", "--option",
				"windowsize 4", "-g", "-r", file, "-l", to, "10.88.1.1")
		}, "file not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			testnet.Need(t, c.program)
			to := filepath.Join(t.TempDir(), "got")
			out, err := c.get("snponly.efi", to).CombinedOutput()
			got, readErr := os.ReadFile(to)
			if err != nil || readErr != nil || !bytes.Equal(got, boot["snponly.efi"]) {
				t.Fatalf("get snponly.efi: %v, %v, %d of %d bytes\n%s", err, readErr, len(got),
					len(boot["snponly.efi"]), out)
			}
			tr := ended(t, done)
			if tr.Err != nil || tr.Bytes != 1<<20 || tr.Server != netip.MustParseAddr("10.88.1.1") ||
				tr.Client.Addr() != netip.MustParseAddr("10.88.1.2") {
				t.Errorf("Done(%+v), want 1 MiB from 10.88.1.1 to 10.88.1.2", tr)
			}
			t.Logf("1 MiB in %v, %d retransmissions", tr.Took.Round(time.Millisecond), tr.Retransmits)

			// A client that got no answer would say that instead.
			out, _ = c.get("nope.efi", to+"2").CombinedOutput()
			if !strings.Contains(strings.ToLower(string(out)), c.missing) {
				t.Errorf("get nope.efi: it says %q, want %q", out, c.missing)
			}
			if tr := ended(t, done); tr.Err == nil || tr.Name != "nope.efi" {
				t.Errorf("Done(%+v), want the refusal of nope.efi", tr)
			}
		})
	}
}

func TestThirtyTwoAtOnce(t *testing.T) {
	testnet.Need(t, "ip", "curl")
	h, done := rack(t)
	dir := t.TempDir()
	start := time.Now()
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			to := filepath.Join(dir, fmt.Sprint(i))
			out, err := h.Command("curl", "-sS", "--tftp-blksize", "1468", "-o", to,
				"tftp://10.88.1.1/snponly.efi").CombinedOutput()
			got, _ := os.ReadFile(to)
			if err != nil || !bytes.Equal(got, boot["snponly.efi"]) {
				t.Errorf("client %d: %v, %d bytes\n%s", i, err, len(got), out)
			}
		})
	}
	all.Wait()
	t.Logf("32 × 1 MiB in %v", time.Since(start).Round(time.Millisecond))
	for range 32 {
		if tr := ended(t, done); tr.Err != nil {
			t.Errorf("Done(%+v), want no error", tr)
		}
	}
}

// iDRAC 8 drops data that does not come from the address it asked.
func TestAnswersFromTheAddressAsked(t *testing.T) {
	testnet.Need(t, "ip", "tftp")
	h, done := rack(t)
	if out, err := exec.Command("ip", "addr", "add", "10.88.1.200/24", "dev",
		"br0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	to := filepath.Join(t.TempDir(), "got")
	h.Run(t, "tftp", "-m", "binary", "10.88.1.200", "-c", "get", "tiny", to)
	if tr := ended(t, done); tr.Err != nil || tr.Server != netip.MustParseAddr("10.88.1.200") {
		t.Errorf("Done(%+v), want it served from 10.88.1.200", tr)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, boot["tiny"]) {
		t.Errorf("got %q, %v, want the file", got, err)
	}
}
