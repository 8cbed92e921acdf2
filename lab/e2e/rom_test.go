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

// There is no BIOS PXE ROM for QEMU that is not iPXE, so one is played here, packet for packet, on a host of
// its own in the rack. It does what the PXE specification 2.1 asks of a ROM, and what Intel's ROMs are seen
// to do.

// playROM is the environment variable that makes this test binary the ROM. Its value is how it behaves.
const playROM = "PXECTL_STORY_ROM"

const (
	plainROM     = "plain"     // believes option 43 and loads the boot file of the offer, in blocks of 512 bytes
	insistingROM = "insisting" // asks port 4011 all the same, then for the file's size, then for blocks of 1456 bytes
	noBzImageROM = "nobzimage" // is an iPXE that cannot load a kernel, as VirtualBox has it: takes its file from the offer's URL
)

const romMAC = "52:54:00:77:0f:01"

// TestMain lets the test binary be the ROM.
func TestMain(m *testing.M) {
	if how := os.Getenv(playROM); how != "" {
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

// A romBoot is what the ROM came to.
type romBoot struct {
	Address netip.Addr // from the site's server
	Server  netip.Addr // that has the boot file
	File    string
	Program []byte // its bytes
	Script  string // that the program was given
}

// It comes to the script beside each of the site's DHCP servers, and with ours alone.
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
					got := r.playROM(t, how)
					want := ipxe.BIOS
					if how == noBzImageROM {
						want = ipxe.Native
					}
					if got.File != want || got.Server != netip.MustParseAddr("10.77.0.1") || !netip.MustParsePrefix("10.77.0.0/24").Contains(got.Address) {
						t.Errorf("the ROM got address %s and %q from %s, want %q from 10.77.0.1", got.Address, got.File, got.Server, want)
					}
					if program, _ := ipxe.NBP(want); !bytes.Equal(got.Program, program) {
						t.Errorf("the ROM loaded %d bytes, want the %d of %s", len(got.Program), len(program), want)
					}
					if !strings.Contains(got.Script, "\nkernel http://10.77.0.1:8080/ramdisk/amd64/vmlinuz ") {
						t.Errorf("the program was given the script\n%s", got.Script)
					}
					if dhcp == lab.NoDHCP {
						if leases := r.pxectl("lease", "list"); !strings.Contains(leases, romMAC) || !strings.Contains(leases, got.Address.String()) {
							t.Errorf("the ROM has %s, and the leases are\n%s", got.Address, leases)
						}
					}
					t.Logf("the script was there after %.1f s", time.Since(began).Seconds())
				})
			}
			if dhcp == lab.NoDHCP {
				return
			}
			// The capture is written a second behind the wire.
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

// playROM switches it on.
func (r *rack) playROM(t *testing.T, how string) (got romBoot) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := r.Command(t.Context(), "ip", "netns", "exec", "rom", self)
	cmd.Env = append(os.Environ(), playROM+"="+how)
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
