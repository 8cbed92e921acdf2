package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/ipxe"
	"github.com/pxectl/pxectl/lab"
	"github.com/pxectl/pxectl/lab/verify"
)

// QEMU has no BIOS PXE ROM other than iPXE, so this test emulates one, packet for packet, on a host of its
// own in the rack. It follows the PXE specification 2.1 and the behaviour of Intel's ROMs.

// romVariable is the environment variable that makes this test binary the ROM. Its value is the kind of ROM.
const romVariable = "PXECTL_TEST_ROM"

const (
	plainROM     = "plain"     // follows option 43 and loads the boot file of the offer, in blocks of 512 bytes
	insistingROM = "insisting" // asks port 4011 even so, then for the file's size, then for blocks of 1456 bytes
	noBzImageROM = "nobzimage" // an iPXE that cannot load a kernel, like VirtualBox's: takes its file from the offer's URL
)

const romMAC = "52:54:00:77:0f:01"

// TestMain lets the test binary be the ROM.
func TestMain(m *testing.M) {
	if how := os.Getenv(romVariable); how != "" {
		got, err := (&rom{how: how}).boot()
		if err != nil {
			fmt.Fprintln(os.Stderr, "rom:", err)
			os.Exit(1)
		}
		_ = json.NewEncoder(os.Stdout).Encode(got)
		return
	}
	os.Exit(m.Run())
}

// A romBoot is the result of a ROM's boot.
type romBoot struct {
	Address netip.Addr // from the site's server
	Server  netip.Addr // with the boot file
	File    string
	Program []byte // the boot file's bytes
	Script  string // for that program
}

// A ROM gets to the script beside each of the site's DHCP servers, and with ours alone.
func TestROMThatIsNotIPXE(t *testing.T) {
	for i, dhcp := range []string{lab.Dnsmasq, lab.Kea, lab.NoDHCP} {
		t.Run(dhcp, func(t *testing.T) {
			if i > 0 {
				onlyWithAllFirmwares(t)
			}
			r := newRackBeside(t, dhcp, "m1:bios")
			r.plugInROM()
			for _, how := range []string{plainROM, insistingROM, noBzImageROM} {
				t.Run(how, func(t *testing.T) {
					began := time.Now()
					got := r.bootROM(t, how)
					want := ipxe.BIOS
					if how == noBzImageROM {
						want = ipxe.Native
					}
					if got.File != want || got.Server != netip.MustParseAddr("10.77.0.1") ||
						!netip.MustParsePrefix("10.77.0.0/24").Contains(got.Address) {
						t.Errorf("the ROM got address %s and %q from %s, want %q from 10.77.0.1", got.Address,
							got.File, got.Server, want)
					}
					if program, _ := ipxe.NBP(want); !bytes.Equal(got.Program, program) {
						t.Errorf("the ROM loaded %d bytes, want the %d of %s", len(got.Program), len(program),
							want)
					}
					if !strings.Contains(got.Script,
						"\nkernel http://10.77.0.1:8080/ramdisk/amd64/vmlinuz ") {
						t.Errorf("the program was given the script\n%s", got.Script)
					}
					if dhcp == lab.NoDHCP {
						if leases := r.pxectl("lease", "list"); !strings.Contains(leases, romMAC) ||
							!strings.Contains(leases, got.Address.String()) {
							t.Errorf("the ROM has %s, and the leases are\n%s", got.Address, leases)
						}
					}
					t.Logf("the script was there after %.1f s", time.Since(began).Seconds())
				})
			}
			if dhcp == lab.NoDHCP {
				return
			}
			// The capture is a second behind the wire.
			r.until(5*time.Second, "the capture shows both servers", func() bool {
				w, err := verify.DHCP(r.Capture(), netip.MustParseAddr("10.77.0.1"))
				return err == nil && w.OurBootFiles >= 7
			})
			r.proveWire()
		})
	}
}

// plugInROM gives the ROM a host of its own in the rack.
func (r *rack) plugInROM() {
	r.t.Helper()
	for _, args := range []string{
		"netns add rom", "link add rom0 type veth peer name eth0 netns rom", "link set rom0 master br0 up",
		"-n rom link set eth0 address " + romMAC, "-n rom link set eth0 up",
	} {
		if _, err := r.Exec(r.t.Context(), "ip", strings.Fields(args)...); err != nil {
			r.t.Fatal(err)
		}
	}
}

// bootROM switches the ROM on and returns the result of its boot.
func (r *rack) bootROM(t *testing.T, how string) (got romBoot) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := r.Command(t.Context(), "ip", "netns", "exec", "rom", self)
	cmd.Env = append(os.Environ(), romVariable+"="+how)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	return got
}
