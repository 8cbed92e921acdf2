package deploy

import (
	"fmt"
	"net"
	"time"

	"github.com/pxectl/pxectl/diagnose"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/inventory/boltdb"
)

// Why says how far a machine came, why not further, and what to do next. ref may be a MAC that is no
// machine's yet.
func (e *Engine) Why(ref string) (diagnose.Diagnosis, error) {
	now := e.cfg.Now()
	w, err := e.find(ref)
	if err == nil {
		s := w.snap.Load()
		var events []inventory.Event
		if err := e.store.View(func(tx *boltdb.Tx) (err error) {
			events, err = tx.Timeline(s.m, 0, boltdb.PerMachine+boltdb.Unowned)
			return err
		}); err != nil {
			return diagnose.Diagnosis{}, err
		}
		d := diagnose.Machine(s.m, s.d, events, now)
		if shows := w.console.Shows(); len(shows) > 0 {
			d.Evidence = append(d.Evidence, inventory.Event{
				Machine: w.id,
				At:      now.UTC(),
				Kind:    inventory.KindConsole,
				Text:    "its console shows " + quoted(shows),
			})
		}
		return d, nil
	}
	if hw, err := net.ParseMAC(ref); err == nil && len(hw) == 20 { // RFC 4391 section 9.1.1
		return diagnose.Diagnosis{}, &inventory.Problem{
			Code: inventory.CodeNotFound,
			Detail: ref +
				" is the address of an InfiniBand card, and machines are known by their Ethernet addresses",
			Hint: "boot it from an Ethernet card, or from one that tells an Ethernet address as its client identifier",
		}
	}
	mac, perr := inventory.ParseMAC(ref)
	if perr != nil {
		return diagnose.Diagnosis{}, err
	}
	var events []inventory.Event
	if err := e.store.View(func(tx *boltdb.Tx) (err error) {
		events, err = tx.Timeline(inventory.Machine{MACs: []inventory.MAC{mac}}, 0, boltdb.Unowned)
		return err
	}); err != nil {
		return diagnose.Diagnosis{}, err
	}
	if len(events) == 0 {
		detail := fmt.Sprintf("%s is no machine's, and nothing was seen of it on the wire", mac)
		if at := e.infiniBandSeen(); !at.IsZero() {
			detail += fmt.Sprintf("; an InfiniBand card, which tells no such address, asked to boot %s ago",
				now.Sub(at).Round(time.Second))
		}
		return diagnose.Diagnosis{}, &inventory.Problem{
			Code: inventory.CodeNotFound, Detail: detail,
			Hint: "is that the MAC of the card that boots, is it on, is network boot first in its boot order, " +
				"and is its cable in the provisioning network? `pxectl events` shows what was seen of others",
		}
	}
	return diagnose.Stranger(mac, events, now), nil
}

// infiniBandSeen is when an InfiniBand card last asked for a boot program. Its packets belong to no machine.
func (e *Engine) infiniBandSeen() (at time.Time) {
	_ = e.store.View(func(tx *boltdb.Tx) error {
		events, err := tx.Timeline(inventory.Machine{MACs: []inventory.MAC{""}}, 0, boltdb.Unowned)
		for _, ev := range events {
			if ev.Data[inventory.DataInfiniBand] != "" && ev.At.After(at) {
				at = ev.At
			}
		}
		return err
	})
	return at
}
