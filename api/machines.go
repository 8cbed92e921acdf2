package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
)

// RefParam is the machine in a path. It is exported because huma does not look into embedded
// structs that are not.
type RefParam struct {
	Ref string `path:"ref" doc:"name, id or MAC"`
}

// Machines is the answer to a list.
// The reports are left out: GET /v1/machines/{ref} has a machine's, and Hardware sums it up.
type Machines struct {
	Machines []inventory.Machine `json:"machines"`
}

// Deleted says how many machines were deleted.
type Deleted struct {
	Deleted int `json:"deleted"`
}

func (s *Server) addMachines(rest huma.API) {
	handle(rest, http.MethodGet, "/v1/machines", "List machines", func(context.Context,
		*struct{},
	) (*body[Machines], error) {
		machines := s.fleet.Machines()
		out := make([]inventory.Machine, len(machines))
		for i, m := range machines {
			out[i] = presented(m)
			out[i].Hardware, out[i].Report = m.Report.Hardware(), nil
		}
		return &body[Machines]{Machines{out}}, nil
	})
	handle(rest, http.MethodGet, "/v1/machines/{ref}", "Show a machine", func(_ context.Context,
		in *RefParam,
	) (*body[inventory.Machine], error) {
		return machineAnswer(s.fleet.Machine(in.Ref))
	})
	type add struct{ Body deploy.NewMachine }
	handle(rest, http.MethodPost, "/v1/machines", "Add a machine before it boots", func(ctx context.Context,
		in *add,
	) (*body[inventory.Machine], error) {
		return machineAnswer(s.fleet.AddMachine(ctx, actorOf(ctx), in.Body))
	})
	type edit struct {
		RefParam
		Body deploy.Edit
	}
	handle(rest, http.MethodPatch, "/v1/machines/{ref}", "Change a machine", func(ctx context.Context,
		in *edit,
	) (*body[inventory.Machine], error) {
		return machineAnswer(s.fleet.EditMachine(ctx, actorOf(ctx), in.Ref, in.Body))
	})
	// null removes a label; huma does not look through the pointer in map[string]*string.
	if e := rest.OpenAPI().Components.Schemas.Map()["Edit"]; e != nil {
		e.Properties["labels"].AdditionalProperties.(*huma.Schema).Nullable = true
	}
	handle(rest, http.MethodDelete, "/v1/machines/{ref}", "Forget a machine", func(ctx context.Context,
		in *RefParam,
	) (*struct{}, error) {
		return nil, s.fleet.DeleteMachine(ctx, actorOf(ctx), in.Ref)
	})
	type approve struct {
		RefParam
		Body *deploy.Approval
	}
	type discovered struct {
		State string `query:"state" enum:"discovered" required:"true" doc:"which machines: those that wait for approval"`
	}
	handle(rest, http.MethodDelete, "/v1/machines", "Forget all machines that wait for approval",
		func(ctx context.Context, _ *discovered) (*body[Deleted], error) {
			n, err := s.fleet.DeleteDiscovered(ctx, actorOf(ctx))
			return &body[Deleted]{Deleted{n}}, err
		})
	handle(rest, http.MethodPost, "/v1/machines/{ref}/approve",
		"Approve a discovered machine, with the reported BMC that is named", func(ctx context.Context,
			in *approve,
		) (*body[inventory.Machine], error) {
			var a deploy.Approval
			if in.Body != nil {
				a = *in.Body
			}
			return machineAnswer(s.fleet.Approve(ctx, actorOf(ctx), in.Ref, a))
		})
	handle(rest, http.MethodGet, "/v1/machines/{ref}/why", "How far a machine came, and why not further",
		func(_ context.Context, in *RefParam) (*body[diagnose.Diagnosis], error) {
			d, err := s.fleet.Why(in.Ref)
			return &body[diagnose.Diagnosis]{d}, err
		})
}

func machineAnswer(m inventory.Machine, err error) (*body[inventory.Machine], error) {
	return &body[inventory.Machine]{presented(m)}, err
}

// presented leaves out the secrets of a machine, which do not leave the appliance, not even sealed.
func presented(m inventory.Machine) inventory.Machine {
	m.BMC.Password, m.BMC.Kg = nil, nil
	return m
}
