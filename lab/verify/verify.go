// Package verify checks the virtual rack from outside: the content of a machine's disk, and the packets on
// the wire. It trusts neither the agent nor the appliance: it reads the disk's file and the capture.
package verify

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/pxectl/pxectl/images"
	"github.com/pxectl/pxectl/internal/pcap"
	"github.com/pxectl/pxectl/inventory"
)

// Disk returns two SHA-256 hashes. The first is of the image's range of a disk, with the named ranges taken
// from the image: finish-disk changes those on purpose. The second is of the image, as sha256sum prints it
// for the imported raw file. store is the appliance's image directory.
func Disk(path, store, imageID string, but []inventory.Range) (sum, want images.Hash, err error) {
	m, err := manifest(store, imageID)
	if err != nil {
		return sum, want, err
	}
	disk, err := os.Open(path)
	if err != nil {
		return sum, want, err
	}
	defer disk.Close()
	data, err := os.Open(filepath.Join(store, imageID, "disk.zst"))
	if err != nil {
		return sum, want, err
	}
	defer data.Close()
	dec, err := images.NewDecoder()
	if err != nil {
		return sum, want, err
	}
	onDisk, ofImage := sha256.New(), sha256.New()
	got, frame, room := make([]byte, m.ChunkSize), []byte(nil), make([]byte, m.ChunkSize)
	for _, c := range m.Chunks {
		got := got[:c.RawLength]
		if _, err := disk.ReadAt(got, c.RawOffset); err != nil {
			return sum, want, fmt.Errorf("read %s at %d: %w", path, c.RawOffset, err)
		}
		frame = slices.Grow(frame[:0], int(c.Length))[:c.Length]
		if _, err := data.ReadAt(frame, c.Offset); err != nil {
			return sum, want, fmt.Errorf("read %s at %d: %w", data.Name(), c.Offset, err)
		}
		image, err := dec.DecodeChunk(room, frame, c)
		if err != nil {
			return sum, want, err
		}
		begin, end := uint64(c.RawOffset), uint64(c.RawOffset+c.RawLength)
		for _, r := range but {
			from, to := max(r.Offset, begin), min(r.Offset+r.Length, end)
			if from < to {
				copy(got[from-begin:to-begin], image[from-begin:to-begin])
			}
		}
		onDisk.Write(got)
		ofImage.Write(image)
	}
	return images.Hash(onDisk.Sum(nil)), images.Hash(ofImage.Sum(nil)), nil
}

// manifest reads an image's manifest in the appliance's directory.
func manifest(store, imageID string) (*images.Manifest, error) {
	f, err := os.Open(filepath.Join(store, imageID, "manifest.json"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, id, err := images.Read(f)
	if err == nil && id != imageID {
		return nil, fmt.Errorf("manifest of image %s has id %s", imageID, id)
	}
	return m, err
}

// Wire counts the DHCP messages in a capture of the provisioning network.
type Wire struct {
	SiteAddresses int // addresses that the site's server gave
	OurAnswers    int // proxy offers and acknowledgements of ours
	OurBootFiles  int // of those, with a boot file
}

// DHCP reads a capture and checks that neither server did the other's work: the site's never gives a boot
// file, and we never give an address.
func DHCP(file string, ours netip.Addr) (w Wire, err error) {
	packets, err := pcap.DHCP(file)
	if err != nil {
		return w, err
	}
	for _, p := range packets {
		d := p.DHCP
		if d.OpCode != dhcpv4.OpcodeBootReply {
			continue
		}
		file := d.BootFileName
		if file == "" {
			file = string(d.GetOneOption(dhcpv4.OptionBootfileName))
		}
		address := d.YourIPAddr != nil && !d.YourIPAddr.IsUnspecified()
		if p.Src.Addr() != ours {
			if address {
				w.SiteAddresses++
			}
			if file != "" {
				return w, fmt.Errorf("%s: %s handed out the boot file %q", p.At.Format("15:04:05.000"), p.Src,
					file)
			}
			continue
		}
		w.OurAnswers++
		if file != "" {
			w.OurBootFiles++
		}
		leased := d.IPAddressLeaseTime(0) != 0
		if address || leased {
			return w, fmt.Errorf("%s: we handed out the address %s (lease %v)", p.At.Format("15:04:05.000"),
				d.YourIPAddr, leased)
		}
	}
	if w.SiteAddresses == 0 || w.OurBootFiles == 0 {
		return w, fmt.Errorf("the capture %s shows %d addresses of the site's server and %d boot files of ours: it cannot be of a deployment",
			file, w.SiteAddresses, w.OurBootFiles)
	}
	return w, nil
}

// Short is a shortened hash for a line of text.
func Short(h images.Hash) string { return hex.EncodeToString(h[:6]) + "…" }

// Names joins the names of ranges for a line of text.
func Names(ranges []inventory.Range) []string {
	var out []string
	for _, r := range ranges {
		if !slices.Contains(out, r.Name) {
			out = append(out, r.Name)
		}
	}
	return out
}
