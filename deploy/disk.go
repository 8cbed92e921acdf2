package deploy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/deploy/nocloud"
	"github.com/pxectl/pxectl/inventory"
)

// chooseDisk picks the disk that an image goes to. Without a hint it is the disk that was deployed to before,
// or else the only candidate. Another disk than before is taken only when the hint names it: when a disk
// dies, the data on another one must not be overwritten.
func chooseDisk(m inventory.Machine, asked *inventory.DiskHint, img Image) (inventory.Disk, error) {
	no := func(hint, format string, args ...any) error {
		err := fmt.Errorf(format, args...)
		return &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error(), Hint: hint, Err: err}
	}
	if img.Fault != "" {
		return inventory.Disk{}, no("import another one; `pxectl image show "+img.Name+"` tells more",
			"image %s: %s", img.Name, img.Fault)
	}
	hint, disks := asked, m.Report.Disks
	if hint == nil {
		hint = m.RootDisk
	}
	if hint == nil && m.Disk != nil {
		if found := m.Disk.Find(disks); len(found) == 1 &&
			(found[0].Special() != "" || len(inventory.Candidates(found)) == 1) {
			hint = &inventory.DiskHint{Name: found[0].Name} // named or chosen for the last deployment
		}
	}
	disk, err := inventory.ChooseDisk(disks, hint, max(img.RawSize, img.Smallest))
	if err != nil {
		return disk, no("name the disk: `pxectl deploy "+m.Name+" --image "+img.Name+" --disk serial=…`",
			"%w", err)
	}
	if m.Disk != nil && !m.Disk.Is(disk) && (hint == nil || !hint.Names(disk)) {
		return disk, no("if that is meant, say so with --disk "+disk.Identity().Said(),
			"disk %s (%s, %d bytes) is not the one that %s was deployed to before (%s, %d bytes)",
			disk.Name, disk.Identity().Said(), disk.Bytes, m.Name, m.Disk.Said(), m.Disk.Bytes)
	}
	if img.SectorSize != 0 && disk.LogicalSector != 0 && img.SectorSize != disk.LogicalSector {
		return disk, no("choose another disk with --disk, or an image made for such disks",
			"disk %s has sectors of %d bytes, the partition table of image %s is made for %d", disk.Name,
			disk.LogicalSector, img.Name, img.SectorSize)
	}
	return disk, nil
}

// ours says that a deployment wrote the disk, and that it was not erased since.
func ours(m inventory.Machine, disk inventory.Disk) bool {
	return m.Holds != "" && m.Disk != nil && m.Disk.Is(disk)
}

// mayOverwrite refuses to overwrite data that no deployment put there, unless overwrite is set.
func mayOverwrite(m inventory.Machine, disk inventory.Disk, overwrite bool) error {
	foreign := disk.Foreign()
	if len(foreign) == 0 || overwrite || ours(m, disk) {
		return nil
	}
	return &inventory.Problem{
		Code: inventory.CodeConflict,
		Detail: fmt.Sprintf("disk %s holds data that pxectl did not put there: %s", disk.Name,
			strings.Join(foreign, ", ")),
		Hint: "if it may be lost, say so with --overwrite",
	}
}

// writable returns the disk that a deployment writes to, from the machine's last inspection. An error says
// why there is none, and the deployment does not begin.
func writable(
	m inventory.Machine, asked *inventory.DiskHint, overwrite bool, img Image,
) (inventory.Disk, error) {
	disk, err := chooseDisk(m, asked, img)
	if err != nil {
		return disk, err
	}
	return disk, mayOverwrite(m, disk, overwrite)
}

// chooseAgain chooses the disk of a deployment from what the agent of this boot has reported, by the same
// rules as before it began. That was with the report of an earlier agent, and anybody on the wire can be one
// for a moment: another disk than then, or none, is an error.
func chooseAgain(image func(string) (Image, error), s *snapshot) (inventory.DiskIdentity, error) {
	img, err := image(s.d.ImageID)
	if err != nil {
		return inventory.DiskIdentity{}, err
	}
	disk, err := writable(s.m, s.d.DiskHint, s.d.Overwrite, img)
	id := disk.Identity()
	if err != nil {
		p := inventory.AsProblem(err)
		return id, &inventory.Problem{
			Code: p.Code, Detail: "by what the agent of this boot reports: " + p.Detail, Hint: p.Hint,
			Err: err,
		}
	}
	if !s.d.Disk.MayBe(disk) {
		return id, &inventory.Problem{
			Code: inventory.CodeConflict,
			Detail: fmt.Sprintf("by what the agent of this boot reports, it is disk %s (%s, %d bytes); by an "+
				"earlier report it was %s (%s, %d bytes)", id.Name, id.Said(), id.Bytes, s.d.Disk.Name,
				s.d.Disk.Said(), s.d.Disk.Bytes),
			Hint: "nothing was written; `pxectl machine show " + s.m.Name + "` lists the disks: " +
				"deploy again with --disk " + id.Said() + " if that one is meant",
		}
	}
	return id, nil
}

// A Plan says what a deployment would do.
type Plan struct {
	Machine     inventory.MachineID `json:"machine"`
	MachineName string              `json:"machine_name"`
	ImageID     string              `json:"image_id"`
	ImageName   string              `json:"image_name"`
	// Disk is as last inspected. The deployment looks at it again before it touches it.
	Disk *inventory.Disk `json:"disk,omitempty"`
	// Holds is the deployment whose system is on the disk.
	Holds     inventory.DeploymentID `json:"holds,omitempty"`
	Untouched []inventory.Disk       `json:"untouched,omitempty"`
	// AtMost is an upper bound of the bytes that are sent. Chunks that are on the disk already are not sent.
	AtMost uint64 `json:"at_most"`
	// Refused says why the deployment would not begin, or why it would fail before it touches anything.
	Refused *Refusal `json:"refused,omitempty"`
}

// A Refusal is a problem that a call returns as its answer, not as an error.
type Refusal struct {
	Code   inventory.Code `json:"code"`
	Detail string         `json:"detail"`
	Hint   string         `json:"hint,omitempty"`
}

// Plan says what Deploy would do with the same request, and touches nothing.
func (e *Engine) Plan(ref string, r inventory.DeployRequest) (Plan, error) {
	w, err := e.find(ref)
	if err != nil {
		return Plan{}, err
	}
	img, err := e.cfg.Image(r.Image)
	if err != nil {
		return Plan{}, err
	}
	if err := checkRequest(r); err != nil {
		return Plan{}, err
	}
	s := w.snap.Load()
	p := Plan{
		Machine: s.m.ID, MachineName: s.m.Name, ImageID: img.ID, ImageName: img.Name, AtMost: img.Stored,
	}
	refuse := func(err error) {
		if err != nil && p.Refused == nil {
			problem := inventory.AsProblem(err)
			p.Refused = &Refusal{Code: problem.Code, Detail: problem.Detail, Hint: problem.Hint}
		}
	}
	refuse(Wish{Deploy: &r}.refused(s))
	if s.m.Report == nil {
		return p, nil
	}
	disk, err := chooseDisk(s.m, r.Disk, img)
	if err != nil {
		refuse(err)
		return p, nil
	}
	p.Disk = &disk
	refuse(mayOverwrite(s.m, disk, r.Overwrite))
	if ours(s.m, disk) {
		p.Holds = s.m.Holds
	}
	for _, d := range s.m.Report.Disks {
		if d.Name != disk.Name {
			p.Untouched = append(p.Untouched, d)
		}
	}
	return p, nil
}

// checkRequest returns what is wrong with a request for any machine.
func checkRequest(r inventory.DeployRequest) error {
	if r.Hostname != "" {
		if err := inventory.CheckHostname(r.Hostname); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		key, value string
		have       []string
	}{
		{"mode", r.Mode, []string{inventory.ModeAuto, inventory.ModeFull, inventory.ModeDelta}},
		{"verify", r.Verify, []string{inventory.VerifyReadBack, inventory.VerifyHash}},
	} {
		if f.value != "" && !slices.Contains(f.have, f.value) {
			return &inventory.Problem{
				Code:   inventory.CodeInvalid,
				Detail: fmt.Sprintf("%s %q: have %s", f.key, f.value, strings.Join(f.have, ", ")),
			}
		}
	}
	if err := checkSeed(r); err != nil {
		return err
	}
	return checkHint(r.Disk)
}

// checkSeed refuses what is too large for a seed, and what cloud-init would ignore. Once the disk is written
// it is too late to tell.
func checkSeed(r inventory.DeployRequest) error {
	if err := nocloud.CheckSizes(r.UserData, r.Network, r.SSHKeys); err != nil {
		return &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error(), Err: err}
	}
	if r.AsIs {
		return nil
	}
	err := cmp.Or(nocloud.CheckUserData(r.UserData), nocloud.CheckNetwork(r.Network),
		nocloud.CheckKeys(r.SSHKeys))
	if err != nil {
		return &inventory.Problem{
			Code: inventory.CodeInvalid, Detail: err.Error(), Err: err,
			Hint: "if the image reads it by another program than cloud-init, say so with --as-is",
		}
	}
	return nil
}

func checkHint(h *inventory.DiskHint) error {
	if h == nil {
		return nil
	}
	if err := h.Check(); err != nil {
		return &inventory.Problem{Code: inventory.CodeInvalid, Detail: err.Error(), Err: err}
	}
	return nil
}
