package lab

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"

	"github.com/bougou/go-ipmi/pkg/bmc"
	"github.com/bougou/go-ipmi/pkg/hal"
	"github.com/bougou/go-ipmi/pkg/handlers"
	"github.com/bougou/go-ipmi/pkg/server"
	"github.com/bougou/go-ipmi/pkg/transport/udp"
	"github.com/bougou/go-ipmi/pkg/types"
	"github.com/bougou/go-ipmi/pkg/vmproto"
)

// Every BMC of a rack has this user and password, like a factory default.
const (
	BMCUser     = "admin"
	BMCPassword = "secret"
)

const ipmiPort = 623

// serveBMC opens a machine's BMC and returns the function that serves it, over the LAN and in-band.
func serveBMC(m *machine) (func(ctx context.Context) error, error) {
	addr := net.UDPAddrFromAddrPort(netipPort(bmcAddress(m.number), ipmiPort))
	sock, err := net.ListenUDP("udp4", addr)
	if err != nil {
		return nil, fmt.Errorf("BMC of %s: %w", m.Name, err)
	}
	inbandSock, err := net.Listen("unix", "@"+inbandName(m.number))
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("BMC of %s, in-band: %w", m.Name, err)
	}
	b := bmc.New(bmc.DeviceInfo{
		DeviceID: 32, DeviceRevision: 1, FirmwareMajor: 1, IPMIVersion: 0x20,
		ManufacturerID: 0x000157, ProductID: 1,
		AdditionalDeviceSupport: 0x80, // chassis device, IPMI 2.0 table 20-2
	}, guid(machineUUID(m.number)), &board{m})
	user, err := b.Users.Add(2, BMCUser)
	if err != nil {
		sock.Close()
		inbandSock.Close()
		return nil, fmt.Errorf("BMC of %s: %w", m.Name, err)
	}
	user.SetPassword([]byte(BMCPassword))
	user.Enabled = true
	user.ChannelAccess[1] = bmc.UserChannelAccess{
		MaxPrivilege: bmc.PrivilegeLevelAdministrator, Enabled: true,
	}

	commands := handlers.NewRegistry()
	handlers.RegisterAllHandlers(commands)
	commands.RegisterFunc(types.CommandGetSystemGUID, systemGUID)
	lan := server.NewServer(b, udp.Wrap(sock), server.WithHandlerRegistry(commands))
	inband := vmproto.NewVMServer(b, vmproto.WithVMHandlerRegistry(commands))
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = lan.Close() })
		defer stop()
		go func() {
			if err := inband.Serve(ctx, inbandSock); err != nil {
				m.log.Error("in-band BMC", "err", err)
			}
		}()
		return lan.Serve(ctx)
	}, nil
}

// systemGUID answers Get System GUID, IPMI 2.0 section 22.14, with the machine's SMBIOS UUID. go-ipmi's
// server lacks it.
func systemGUID(
	_ context.Context, h *handlers.HandlerContext, _ []byte,
) ([]byte, types.CompletionCode, error) {
	return h.BMC.GUID[:], types.CodeOK, nil
}

// guid is a UUID in IPMI's form: all fields least significant byte first, IPMI 2.0 section 20.8 and table
// 20-10.
func guid(uuid string) (g [16]byte) {
	raw, _ := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	for i, b := range raw {
		g[len(g)-1-i] = b
	}
	return g
}

// A board is the BMC's view of its machine.
type board struct{ m *machine }

func (b *board) Chassis() hal.ChassisHAL { return chassis{b.m} }
func (b *board) Network() hal.NetworkHAL { return nic{b.m.number} }
func (b *board) Console() hal.ConsoleHAL { return b.m.console }
func (b *board) Sensors() hal.SensorHAL  { return nil }
func (b *board) Storage() hal.StorageHAL { return nil }
func (b *board) GPIO() hal.GPIOHAL       { return nil }
func (b *board) I2C() hal.I2CHAL         { return nil }
func (b *board) Close() error            { return nil }

type chassis struct{ m *machine }

func (c chassis) PowerState(context.Context) (bool, error) { return c.m.isOn(), nil }

func (c chassis) SetPower(_ context.Context, on bool) error {
	if on {
		return c.order("on")
	}
	return c.order("off")
}

func (c chassis) PowerCycle(context.Context) error { return c.order("cycle") }
func (c chassis) ColdReset(context.Context) error  { return c.order("reset") }

// WarmReset is the server's name for a soft shutdown (chassis control 05h).
func (c chassis) WarmReset(context.Context) error { return c.order("soft") }

func (c chassis) order(action string) error {
	_, err := c.m.power(action)
	if err != nil {
		c.m.log.Info("BMC refuses", "power", action, "err", err)
	}
	return err
}

func (c chassis) Identify(context.Context, uint8) error { return nil }

func (c chassis) IntrusionState(context.Context) (bool, error) { return false, hal.ErrNotSupported }

func (c chassis) SetBootFlags(_ context.Context, flags *types.BootOptionParam_BootFlags) error {
	c.m.setBootFlags(*flags)
	return nil
}

func (c chassis) GetBootFlags(context.Context) (*types.BootOptionParam_BootFlags, error) {
	_, _, boot := c.m.state()
	return &boot.Flags, nil
}

func (c chassis) SetBootInfoAcknowledge(context.Context, *types.BootOptionParam_BootInfoAcknowledge) error {
	return nil
}

func (c chassis) GetBootInfoAcknowledge(context.Context) (*types.BootOptionParam_BootInfoAcknowledge, error) {
	return nil, hal.ErrNotSupported
}

// nic is the BMC's LAN configuration, parameters 3 to 6 and 12 of IPMI 2.0 table 23-4.
type nic struct{ number int }

func (n nic) GetConfig(context.Context) (*hal.IPConfig, error) {
	return &hal.IPConfig{
		IP: bmcAddress(n.number).As4(), Mask: [4]byte{255, 255, 255, 0}, Gateway: siteAddress.As4(),
		MAC: bmcMAC(n.number), Port: ipmiPort,
	}, nil
}

func (n nic) SetConfig(context.Context, *hal.IPConfig) error { return hal.ErrNotSupported }
