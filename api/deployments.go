package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/inventory"
)

// Deployment is the record of a deployment, with the name of its machine, its progress and how long it can be
// retried.
type Deployment struct {
	inventory.Deployment
	MachineName string              `json:"machine_name,omitempty"`
	Progress    *inventory.Progress `json:"progress,omitempty" doc:"of the order that is being done"`
	RetryUntil  time.Time           `json:"retry_until,omitzero" doc:"of a failed deployment: how long what it was given is kept for a retry"`
}

// Deployments is the answer to a list, newest first.
type Deployments struct {
	Deployments []Deployment `json:"deployments"`
	More        bool         `json:"more,omitempty" doc:"there are older ones: ask again with before, which is the id of the last"`
}

// Erasures is the answer to a list of them, newest first.
type Erasures struct {
	Erasures []inventory.Erasure `json:"erasures"`
	More     bool                `json:"more,omitempty" doc:"there are older ones: ask again with before, which is the seq of the last"`
}

// withUserData makes room for the largest user-data there may be, and all else of a request.
func withUserData(op *huma.Operation) { op.MaxBodyBytes = 2 << 20 }

func (s *Server) addDeployments(rest huma.API) {
	type ask struct {
		RefParam
		Body inventory.DeployRequest
	}
	handle(rest, http.MethodPost, "/v1/machines/{ref}/deploy", "Write an image to a machine",
		func(ctx context.Context, in *ask) (*body[Deployment], error) {
			return s.deploymentAnswer(s.fleet.Deploy(ctx, actorOf(ctx), in.Ref, in.Body))
		}, withUserData)
	handle(rest, http.MethodPost, "/v1/machines/{ref}/plan", "What a deployment would do; nothing is touched",
		func(_ context.Context, in *ask) (*body[deploy.Plan], error) {
			p, err := s.fleet.Plan(in.Ref, in.Body)
			return &body[deploy.Plan]{p}, err
		}, withUserData)
	type release struct {
		RefParam
		Body inventory.EraseRequest
	}
	handle(rest, http.MethodPost, "/v1/machines/{ref}/release",
		"Take a machine's system away and erase its disks", func(ctx context.Context,
			in *release,
		) (*body[Deployment], error) {
			return s.deploymentAnswer(s.fleet.Release(ctx, actorOf(ctx), in.Ref, in.Body))
		})
	handle(rest, http.MethodPost, "/v1/machines/{ref}/clean",
		"Erase the disks of a machine that is available", func(ctx context.Context,
			in *release,
		) (*body[Deployment], error) {
			return s.deploymentAnswer(s.fleet.Clean(ctx, actorOf(ctx), in.Ref, in.Body))
		})
	type which struct {
		Of     string `query:"of" doc:"a machine's name, id or MAC, also of one that is gone, or a disk's serial or WWN; all without it"`
		Before uint64 `query:"before" doc:"only those that come after this one in the list: a seq"`
		Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"how many at most"`
	}
	handle(rest, http.MethodGet, "/v1/erasures", "What was erased, and what proves it; newest first",
		func(_ context.Context, in *which) (*body[Erasures], error) {
			found, more, err := s.fleet.Erasures(deploy.ErasureQuery{
				Of: in.Of, Before: in.Before, Limit: in.Limit,
			})
			if found == nil {
				found = []inventory.Erasure{}
			}
			return &body[Erasures]{Erasures{found, more}}, err
		})
	type list struct {
		Machine string                 `query:"machine" doc:"only of this machine (name, id or MAC)"`
		Running bool                   `query:"running" doc:"only those that have not ended"`
		Before  inventory.DeploymentID `query:"before" doc:"only those that come after this one in the list"`
		Limit   int                    `query:"limit" minimum:"1" maximum:"500" default:"100" doc:"how many at most"`
	}
	handle(rest, http.MethodGet, "/v1/deployments",
		"List deployments and releases, newest first; of each machine the last 20 are kept",
		func(_ context.Context, in *list) (*body[Deployments], error) {
			found, more, err := s.fleet.Deployments(deploy.DeploymentQuery{
				Machine: in.Machine, Running: in.Running, Before: in.Before, Limit: in.Limit,
			})
			if err != nil {
				return nil, err
			}
			names := map[inventory.MachineID]string{}
			for _, m := range s.fleet.Machines() {
				names[m.ID] = m.Name
			}
			out := Deployments{Deployments: []Deployment{}, More: more}
			for _, d := range found {
				out.Deployments = append(out.Deployments, s.presentedDeployment(d, names[d.Machine]))
			}
			return &body[Deployments]{out}, nil
		})
	type ref struct {
		Ref string `path:"ref" doc:"a deployment's id, or a machine's name, id or MAC for its last one"`
	}
	handle(rest, http.MethodGet, "/v1/deployments/{ref}", "Show a deployment, with live progress",
		func(_ context.Context, in *ref) (*body[Deployment], error) {
			return s.deploymentAnswer(s.fleet.Deployment(in.Ref))
		})
	handle(rest, http.MethodPost, "/v1/deployments/{ref}/cancel", "Cancel a deployment",
		func(ctx context.Context, in *ref) (*body[Deployment], error) {
			d, err := s.fleet.Deployment(in.Ref)
			if err != nil {
				return nil, err
			}
			return s.deploymentAnswer(s.fleet.CancelDeployment(ctx, actorOf(ctx), d.ID))
		})
	handle(rest, http.MethodPost, "/v1/deployments/{ref}/retry",
		"Start a failed deployment or release again, with all that was asked for", func(ctx context.Context,
			in *ref,
		) (*body[Deployment], error) {
			return s.deploymentAnswer(s.fleet.Retry(ctx, actorOf(ctx), in.Ref))
		})
}

func (s *Server) deploymentAnswer(d inventory.Deployment, err error) (*body[Deployment], error) {
	if err != nil {
		return nil, err
	}
	name := ""
	if m, err := s.fleet.Machine(string(d.Machine)); err == nil { // it may be deleted since
		name = m.Name
	}
	return &body[Deployment]{s.presentedDeployment(d, name)}, nil
}

func (s *Server) presentedDeployment(d inventory.Deployment, name string) Deployment {
	out := Deployment{Deployment: d, MachineName: name, RetryUntil: deploy.RetryUntil(d)}
	out.Secret = nil
	if d.Outcome == inventory.Running {
		if p, ok := s.fleet.Progress(d.Machine); ok {
			out.Progress = &p
		}
	}
	return out
}
