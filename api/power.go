package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// PowerRequest asks for one action.
type PowerRequest struct {
	Action power.Action `json:"action" enum:"on,off,soft,cycle,reset"`
}

// BootDevice is the override of the boot order that the BMC holds, as power.Boot.
type BootDevice struct {
	Device     power.Device `json:"device" enum:"none,pxe,disk,cdrom,bios,other"`
	Persistent bool         `json:"persistent,omitempty" doc:"for every boot, not only the next one"`
	Unread     bool         `json:"unread,omitempty" doc:"the BMC took it and refuses to tell what stands"`
	// When EFI is left out, it is set as the machine last booted.
	EFI *bool `json:"efi,omitempty" doc:"with the EFI bit; left out: as the machine last booted"`
}

func (s *Server) addPower(rest huma.API) {
	handle(rest, http.MethodGet, "/v1/machines/{ref}/power", "Ask the BMC for the power state",
		func(ctx context.Context, in *RefParam) (*body[inventory.Power], error) {
			p, err := s.fleet.PowerStatus(ctx, in.Ref)
			return &body[inventory.Power]{p}, err
		})
	type act struct {
		RefParam
		Body PowerRequest
	}
	handle(rest, http.MethodPost, "/v1/machines/{ref}/power", "Switch the power and wait for proof",
		func(ctx context.Context, in *act) (*body[inventory.Power], error) {
			p, err := s.fleet.Power(ctx, actorOf(ctx), in.Ref, in.Body.Action)
			return &body[inventory.Power]{p}, err
		})
	handle(rest, http.MethodGet, "/v1/machines/{ref}/boot", "Read the boot device", func(ctx context.Context,
		in *RefParam,
	) (*body[BootDevice], error) {
		return bootAnswer(s.fleet.BootDevice(ctx, in.Ref))
	})
	type set struct {
		RefParam
		Body BootDevice
	}
	handle(rest, http.MethodPut, "/v1/machines/{ref}/boot", "Set the boot device and read it back",
		func(ctx context.Context, in *set) (*body[BootDevice], error) {
			if in.Body.Device == power.DeviceOther {
				return nil, invalid(`device "other" can only be read`)
			}
			m, err := s.fleet.Machine(in.Ref)
			if err != nil {
				return nil, err
			}
			b := power.Boot{Device: in.Body.Device, Persistent: in.Body.Persistent}
			if in.Body.EFI != nil {
				b.EFI = *in.Body.EFI
			} else {
				b.EFI = m.Report == nil || m.Report.Firmware != "bios"
			}
			return bootAnswer(s.fleet.SetBootDevice(ctx, actorOf(ctx), in.Ref, b))
		})
}

func bootAnswer(b power.Boot, err error) (*body[BootDevice], error) {
	return &body[BootDevice]{BootDevice{
		Device: b.Device, Persistent: b.Persistent, Unread: b.Unread,
		EFI: &b.EFI,
	}}, err
}
