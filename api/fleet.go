package api

import (
	"context"
	"io"

	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// Fleet is what the API asks of the engine that runs the machines.
// ref is a machine's name, id or MAC. actor is who asks ("unix:uid=0").
// Errors that a person should understand carry an *inventory.Problem.
type Fleet interface {
	Machines() []inventory.Machine
	Machine(ref string) (inventory.Machine, error)
	AddMachine(ctx context.Context, actor string, m deploy.NewMachine) (inventory.Machine, error)
	EditMachine(ctx context.Context, actor, ref string, e deploy.Edit) (inventory.Machine, error)
	DeleteMachine(ctx context.Context, actor, ref string) error
	// DeleteDiscovered forgets all machines that wait for approval, and says how many.
	DeleteDiscovered(ctx context.Context, actor string) (int, error)
	// Approve lets a discovered machine in, and accepts the BMC that it reports, as far as the Approval says.
	// Approving it again is no error.
	Approve(ctx context.Context, actor, ref string, a deploy.Approval) (inventory.Machine, error)

	Deploy(ctx context.Context, actor, ref string, r inventory.DeployRequest) (inventory.Deployment, error)
	// Plan says what Deploy would do, and touches nothing.
	Plan(ref string, r inventory.DeployRequest) (deploy.Plan, error)
	// Release and Clean erase the disks of a machine; they return the run that does so.
	Release(ctx context.Context, actor, ref string, r inventory.EraseRequest) (inventory.Deployment, error)
	Clean(ctx context.Context, actor, ref string, r inventory.EraseRequest) (inventory.Deployment, error)
	// Erasures are newest first; more says that there are older ones, to be had with Before.
	Erasures(q deploy.ErasureQuery) (list []inventory.Erasure, more bool, err error)
	CancelDeployment(ctx context.Context, actor string,
		id inventory.DeploymentID) (inventory.Deployment, error)
	// Retry starts a failed deployment or release again; ref is its id, or its machine.
	Retry(ctx context.Context, actor, ref string) (inventory.Deployment, error)
	// Deployments are newest first; more says that there are older ones, to be had with Before.
	Deployments(q deploy.DeploymentQuery) (list []inventory.Deployment, more bool, err error)
	// Deployment returns a deployment. ref is its id, or a machine's for the machine's current or last one.
	Deployment(ref string) (inventory.Deployment, error)
	// Progress is of the order that the machine's agent is doing; ok is false when there is none.
	Progress(id inventory.MachineID) (p inventory.Progress, ok bool)

	// Power waits for proof of on, off and cycle.
	Power(ctx context.Context, actor, ref string, a power.Action) (inventory.Power, error)
	PowerStatus(ctx context.Context, ref string) (inventory.Power, error)
	BootDevice(ctx context.Context, ref string) (power.Boot, error)
	// SetBootDevice returns what the BMC reads back.
	SetBootDevice(ctx context.Context, actor, ref string, b power.Boot) (power.Boot, error)
	// Console copies both ways until ctx ends or in returns io.EOF. It touches in and out only once the
	// console is attached, so an error before that can still be answered as a problem.
	Console(ctx context.Context, actor, ref string, in io.Reader, out io.Writer) error

	// Events are oldest first; machine "" means all.
	Events(after uint64, machine inventory.MachineID, limit int) ([]inventory.Event, error)
	// Wait returns when there is an event with Seq > after.
	Wait(ctx context.Context, after uint64) error
	Why(ref string) (diagnose.Diagnosis, error)
}

// Agents is the side of the engine that the agents in the ramdisk call. A wrong, dead or replayed
// nonce is a Problem with inventory.CodeRefused.
type Agents interface {
	Register(ctx context.Context, c inventory.Caller, r inventory.Registration) (inventory.Registered, error)
	// Next holds the call until there is an order, for 20 s at most.
	Next(ctx context.Context, c inventory.Caller, a inventory.Ask) (inventory.Order, error)
	// OrderProgress of an order that is no longer wanted is a Problem with CodeConflict or
	// CodeNotFound; the agent gets 410 and gives the order up.
	OrderProgress(ctx context.Context, c inventory.Caller, order string, p inventory.Progress) error
	OrderResult(ctx context.Context, c inventory.Caller, order string, r inventory.Result) error
	// ResultTurn waits until it is the caller's turn to send a result, which lasts until end is called, and
	// says how many bytes it may have: a stranger's fewer than an approved machine's.
	ResultTurn(ctx context.Context, c inventory.Caller) (limit int64, end func(), err error)
	// MayRead says whether the caller, who names a boot id, may have the manifest of the image.
	MayRead(ctx context.Context, c inventory.Caller, bootID, imageID string) error
}

// Images is the store of OS images, as *store.Store. ref is an image's name, id or the beginning
// of its id. Delete should refuse what a deployment needs; a bare store does not know.
type Images interface {
	List() []store.Info
	Get(ref string) (store.Info, error)
	Delete(ref string) (store.Info, error)
	// Import reads src to its end, converts and verifies it.
	Import(ctx context.Context, src io.Reader, opt store.ImportOptions) (store.Info, error)
	// Verify reads all of an image again. progress is called from one goroutine at a time.
	Verify(ctx context.Context, ref string, progress func(store.Progress)) (store.Verdict, error)
}

// VersionInfo names the program that answers.
type VersionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}
