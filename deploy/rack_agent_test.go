package deploy

import (
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// agent plays the ramdisk. Like the real one it never gives up on a dead appliance, and repeats what was not
// acknowledged.
func (r *rack) agent(ctx context.Context, nonce, boot string) {
	bootID, me := bootIDOf(boot), agentAt(nonce, "192.0.2.100")
	again := func(f func(e *Engine) error) bool {
		for ctx.Err() == nil {
			err := f(r.now())
			if err == nil {
				return true
			}
			if p := inventory.AsProblem(err); p.Code == inventory.CodeRefused {
				return false
			}
			time.Sleep(2 * time.Millisecond)
		}
		return false
	}
	call := func(f func(context.Context, *Engine) error) bool {
		return again(func(e *Engine) error {
			ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond) // the appliance may die under it
			defer cancel()
			return f(ctx, e)
		})
	}
	if !call(func(ctx context.Context, e *Engine) error {
		_, err := e.Register(ctx, me, inventory.Registration{MAC: testMAC, BootID: bootID})
		return err
	}) {
		return
	}
	for ctx.Err() == nil {
		var o inventory.Order
		if !call(func(ctx context.Context, e *Engine) (err error) {
			o, err = e.Next(ctx, me, inventory.Ask{BootID: bootID})
			return err
		}) {
			return
		}
		if o.Do == inventory.DoWait {
			continue
		}
		parts := []inventory.Order{o}
		if o.Do == inventory.DoErase {
			parts = nil
			for i := range o.Targets { // each disk has a result of its own
				part := o
				part.Target = &o.Targets[i]
				parts = append(parts, part)
			}
		}
		var failed []inventory.Result // after what went well
		for _, o := range parts {
			res := r.obey(o)
			res.BootID = bootID
			if o.Do == inventory.DoErase {
				res.Disk = o.Target
				if res.Error != "" {
					failed = append(failed, res)
					continue
				}
			}
			_ = r.now().OrderProgress(ctx, me, o.ID, inventory.Progress{
				BootID: bootID, Phase: "write", Done: 1, Total: 2,
			})
			if !call(func(ctx context.Context,
				e *Engine,
			) error {
				return e.OrderResult(ctx, me, o.ID, res)
			}) {
				return
			}
		}
		if len(failed) > 0 &&
			!call(func(ctx context.Context,
				e *Engine,
			) error {
				return e.OrderResult(ctx, me, o.ID, failed[0])
			}) {
			return
		}
		switch o.Do {
		case inventory.DoPowerOff:
			r.bmc.Set(false)
			return
		case inventory.DoReboot:
			if r.hangs.Load() {
				return
			}
			r.wg.Go(func() { r.powerOn(power.Boot{}) })
			return
		}
	}
}

// obey returns the result of an order: a good one, or the one that the test wants.
func (r *rack) obey(o inventory.Order) inventory.Result {
	r.mu.Lock()
	onOrder, answer := r.onOrder, r.answer
	r.mu.Unlock()
	if onOrder != nil {
		onOrder(o)
	}
	res := goodResult(o, r.has(), r.reports())
	if res.Report != nil {
		res.Report.PCI = r.pci
	}
	if answer != nil {
		if other := answer(o); other.Error != "" || other.Report != nil {
			res = other
		}
	}
	return res
}

// has returns the disks that are in the machine now.
func (r *rack) has() []inventory.Disk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disks
}

// setOnOrder and setAnswer are for a machine that runs already.
func (r *rack) setOnOrder(f func(inventory.Order)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onOrder = f
}

func (r *rack) setAnswer(f func(inventory.Order) inventory.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

func (r *rack) replaceDisks(disks ...inventory.Disk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disks = disks
}

// reports is where the agent says that the BMC is; "" when it finds none.
func (r *rack) reports() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.noBMC {
		return ""
	}
	return r.at
}

func (r *rack) moveBMC(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = address
}

func goodResult(o inventory.Order, disks []inventory.Disk, bmc string) inventory.Result {
	if o.Target != nil && !slices.ContainsFunc(disks, o.Target.Is) {
		return inventory.Result{Error: "disk " + o.Target.Name + " is not there any more"}
	}
	switch o.Do {
	case inventory.DoInspect:
		rep := &inventory.Report{Firmware: "uefi", Disks: disks, BMC: &inventory.BMCReport{Address: bmc}}
		if bmc == "" {
			rep.BMC = nil
		}
		return inventory.Result{Report: rep}
	case inventory.DoWriteImage:
		return inventory.Result{Written: &inventory.Written{Bytes: 1 << 30, Chunks: 256, ReadBack: 256}}
	case inventory.DoErase:
		if o.Quick {
			return inventory.Result{
				Erased: &inventory.Erased{Method: inventory.MethodMetadata, Proof: "no label is left"},
			}
		}
		return inventory.Result{
			Erased: &inventory.Erased{
				Method: "discard", Proof: "read back 1024 places", Checked: 1024, Bytes: o.Target.Bytes,
				Removed: []string{"Boot0007 " + o.Target.Serial},
			},
		}
	case inventory.DoFinishDisk:
		return inventory.Result{
			Finished: &inventory.Finished{Partitions: 4, Removed: []string{"Boot0006 debian"}},
		}
	}
	return inventory.Result{}
}

// system plays the deployed OS: it phones home with what its seed told it.
func (r *rack) system(ctx context.Context) {
	for ctx.Err() == nil && !r.noHome.Load() {
		m, err := r.now().Machine(string(testMAC))
		if err == nil && m.Deployment != "" {
			err = r.now().PhoneHome(ctx, m.Deployment, testKey.PhoneHomeToken(m.Deployment), "192.0.2.100",
				func() string { return "m1" })
		}
		if err == nil {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// agentAt is a call of the machine's agent. Whatever the boot, it has the same key here.
func agentAt(nonce, ip string) inventory.Caller {
	return inventory.Caller{Nonce: nonce, Key: "key of the agent", IP: ip}
}

// bootIDOf is a boot id as the kernel makes them.
func bootIDOf(name string) string {
	return fmt.Sprintf("%08x-0000-4000-8000-000000000000", crc32.ChecksumIEEE([]byte(name)))
}
