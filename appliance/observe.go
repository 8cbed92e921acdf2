package appliance

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/felixge/httpsnoop"

	"github.com/pxectl/pxectl/dhcpd"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/ipxe"
	"github.com/pxectl/pxectl/tftpd"
)

// The functions saw… and recorded put what the servers saw on the timelines. An event that happens again has
// the same text (times and counts of packets are in its data), so that repeats are counted and not stored.
// Package diagnose reads the data.

// facts makes an event's data from pairs of key and value. It leaves out empty values.
func facts(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			m[pairs[i]] = pairs[i+1]
		}
	}
	return m
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

func number[T int | int64](n T) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func ip(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// shown cleans and shortens a path or a file's name for an event, since any client may choose it.
func shown(s string) string { return inventory.Text(s, inventory.MaxWord) }

// machineMAC converts the MAC of a DHCP client, which dhcpd has checked. ok is false when there is none.
func machineMAC(hw net.HardwareAddr) (inventory.MAC, bool) {
	return inventory.MAC(hw.String()), hw != nil
}

// sawDHCP notes a client's packet and our answer.
func (p bootPlane) sawDHCP(s dhcpd.Seen) {
	mac, ok := machineMAC(s.MAC)
	if !ok {
		if s.BootFirmware() { // an event of no machine, since machines are known by their MACs
			p.engine.Note(inventory.Event{
				At: s.Time.UTC(), Kind: inventory.KindDHCP, Text: s.String(), Data: facts(
					inventory.DataType, s.Type.String(), inventory.DataClass, string(s.Class),
					inventory.DataInterface, s.Interface,
					inventory.DataUnserved, "yes", inventory.DataInfiniBand, yes(s.InfiniBand),
				),
			})
		}
		return
	}
	if s.Class != dhcpd.ClassOther && s.Type.String() == "REQUEST" && s.Addr.IsValid() {
		p.addresses.learn(s.Addr, mac) // its TFTP requests come from there
	}
	if s.Class == dhcpd.ClassOther && s.Vendor != inventory.AgentVendor && !s.BootFirmware() {
		p.engine.SawSystem(mac)
	}
	answer, arch := "", ""
	if s.Answer != 0 {
		answer = s.Answer.String()
	}
	if s.HasArch {
		arch = strconv.Itoa(int(s.Arch))
	}
	p.engine.Note(inventory.Event{
		At: s.Time.UTC(), MAC: mac, Kind: inventory.KindDHCP, Text: s.String(), Data: facts(
			inventory.DataType, s.Type.String(), inventory.DataClass, string(s.Class),
			inventory.DataPort, strconv.Itoa(s.Port), inventory.DataInterface, s.Interface,
			inventory.DataAnswer, answer, inventory.DataBoot, s.Boot, inventory.DataSelected, ip(s.Selected),
			inventory.DataUnconfigured, yes(!s.Server.IsValid()),
			inventory.DataUnserved, yes(s.NoProgram || s.Class == dhcpd.ClassOther && s.BootFirmware()),
			inventory.DataOdd, s.Odd,
			inventory.DataReason, string(s.Reason.Code), inventory.DataWhy, s.Reason.String(),
			inventory.DataArch, arch,
		),
	})
}

// sawTFTP notes a transfer that has ended.
func (p bootPlane) sawTFTP(t tftpd.Transfer) {
	name, rubbish := fileMeant(t.Request)
	t.Name = shown(name)
	ev := inventory.Event{MAC: p.addresses.mac(t.Client.Addr()), Kind: inventory.KindTFTP, Data: facts(
		inventory.DataFile, t.Name, inventory.DataClient, ip(t.Client.Addr()),
		inventory.DataBytes, number(t.Bytes),
		inventory.DataTook, t.Took.Round(time.Millisecond).String(),
		inventory.DataRetransmits, number(t.Retransmits), inventory.DataBlockSize, number(t.BlockSize),
	)}
	if rubbish {
		t.Name += fmt.Sprintf(" (asked for with rubbish behind the name, %s)",
			shown(fmt.Sprintf("%q", t.Raw)))
	}
	var slow net.Error
	ended := func(r inventory.TFTPResult, text string) {
		ev.Text, ev.Data[inventory.DataResult] = text, string(r)
	}
	switch {
	case t.Aborted: // before every UEFI download
		ended(inventory.TFTPSize, t.Name+": asked for its size")
	case errors.Is(t.Err, tftpd.ErrMalformed):
		ended(inventory.TFTPMalformed, t.Err.Error())
	case errors.Is(t.Err, fs.ErrNotExist):
		ended(inventory.TFTPMissing, t.Name+": no such file")
	case errors.As(t.Err, &slow) && slow.Timeout():
		ended(inventory.TFTPStalled,
			fmt.Sprintf("%s: the client stopped acknowledging after %d bytes", t.Name, t.Bytes))
	case t.Err != nil:
		ended(inventory.TFTPFailed, fmt.Sprintf("%s: %v", t.Name, t.Err))
	default:
		ended(inventory.TFTPSent, fmt.Sprintf("%s: %d bytes", t.Name, t.Bytes))
	}
	p.engine.Note(ev)
}

// sawHTTP notes an answered request of the boot plane.
func (p bootPlane) sawHTTP(r ipxe.Request) {
	r.Path, r.Method = shown(r.Path), shown(r.Method)
	ev := inventory.Event{At: r.At.UTC(), Kind: inventory.KindHTTP, Data: facts(
		inventory.DataPath, r.Path, inventory.DataStatus, number(r.Status),
		inventory.DataClient, ip(r.Remote.Addr()),
		inventory.DataBytes, number(r.Sent), inventory.DataTook, r.Took.Round(time.Millisecond).String(),
	)}
	if r.Params != nil && r.Boot != nil {
		ev.MAC, _ = inventory.ParseMAC(r.Params.MAC)
		p.addresses.learn(r.Remote.Addr(), ev.MAC)
		ev.Text = fmt.Sprintf("boot script: %s", r.Boot.Action)
		if r.Boot.Reason != "" {
			ev.Text += " (" + r.Boot.Reason + ")"
		}
		ev.Data[inventory.DataAction], ev.Data[inventory.DataReason] = string(r.Boot.Action), r.Boot.Reason
		if nic := pciOf(r.Params.BusID); nic != "" {
			ev.Data[inventory.DataNIC] = nic
		}
		p.engine.Note(ev)
		return
	}
	ev.MAC = p.addresses.mac(r.Remote.Addr())
	ev.Text = fmt.Sprintf("%s %s: %d", r.Method, r.Path, r.Status)
	if r.Sent < r.Want && r.Method != http.MethodHead {
		ev.Text += ", cut off"
		ev.Data[inventory.DataCut], ev.Data[inventory.DataWant] = "yes", fmt.Sprint(r.Want)
	}
	p.engine.Note(ev)
}

// busID is iPXE's name of a PCI card: bus type 01, vendor, device.
var busID = regexp.MustCompile(`^01[:-]?([0-9a-f]{2})[:-]?([0-9a-f]{2})[:-]?([0-9a-f]{2})[:-]?([0-9a-f]{2})$`)

// pciOf returns vendor and device of the network card in iPXE's bus id, "8086:1533", or "" when it is no PCI
// card.
func pciOf(id string) string {
	m := busID.FindStringSubmatch(strings.ToLower(id))
	if m == nil {
		return ""
	}
	return m[1] + m[2] + ":" + m[3] + m[4]
}

// recorded notes what machines fetch of images. All successful range requests for a path have one text, so
// they are one event.
func (p bootPlane) recorded(images http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answered := httpsnoop.CaptureMetrics(images, w, r)
		remote, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			return
		}
		method, path := shown(r.Method), shown(r.URL.Path)
		text := fmt.Sprintf("%s %s: %d", method, path, answered.Code)
		if answered.Code == http.StatusPartialContent {
			text = fmt.Sprintf("%s %s: a range", method, path)
		}
		p.engine.Note(inventory.Event{
			MAC: p.addresses.mac(remote.Addr()), Kind: inventory.KindHTTP, Text: text, Data: facts(
				inventory.DataPath, path, inventory.DataStatus, number(answered.Code),
				inventory.DataClient, ip(remote.Addr().Unmap()),
				inventory.DataTook, answered.Duration.Round(time.Millisecond).String(),
			),
		})
	})
}
