package hardware

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/u-root/u-root/pkg/ipmi"

	"github.com/pxectl/pxectl/inventory"
)

// LAN configuration parameters: IPMI 2.0 table 23-4.
const (
	lanIP      = 3
	lanMAC     = 5
	lanNetmask = 6
	lanGateway = 12
)

// A lanAsker reads one LAN configuration parameter. The answer begins with the completion code and the
// parameter's revision.
type lanAsker func(channel, param byte) ([]byte, error)

// AskBMC asks the BMC through the kernel's driver. On a machine without one it returns nil and no error.
func AskBMC() (*inventory.BMCReport, error) {
	dev, err := ipmi.Open(0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	id, err := dev.GetDeviceID()
	if err != nil {
		return nil, fmt.Errorf("ask the BMC for its device ID: %w", err)
	}
	r := lan(dev.GetLanConfig)
	r.Firmware = fmt.Sprintf("%d.%02x", id.FwRev1&0x7f, id.FwRev2) // the second part is BCD: section 20.1
	return r, nil
}

// lan finds the channel with an address: 1 on most machines, anything up to 11 on the others.
func lan(ask lanAsker) *inventory.BMCReport {
	param := func(channel, p byte, n int) []byte {
		data, err := ask(channel, p)
		if err != nil || len(data) < 2+n || data[0] != 0 {
			return nil
		}
		return data[2 : 2+n]
	}
	for channel := byte(1); channel <= 11; channel++ {
		ip := param(channel, lanIP, 4)
		if ip == nil || net.IP(ip).IsUnspecified() {
			continue
		}
		r := &inventory.BMCReport{Address: net.IP(ip).String(), Channel: int(channel)}
		if mask := param(channel, lanNetmask, 4); mask != nil {
			r.Netmask = net.IP(mask).String()
		}
		if gw := param(channel, lanGateway, 4); gw != nil && !net.IP(gw).IsUnspecified() {
			r.Gateway = net.IP(gw).String()
		}
		if hw := param(channel, lanMAC, 6); hw != nil {
			if mac, err := inventory.ParseMAC(net.HardwareAddr(hw).String()); err == nil {
				r.MAC = mac
			}
		}
		return r
	}
	return &inventory.BMCReport{}
}
