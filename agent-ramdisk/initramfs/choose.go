package initramfs

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pxectl/pxectl/agent-ramdisk/modules"
)

// early are the folders of drivers that lead to a network card.
var early = []string{"drivers/net/", "drivers/virtio/", "drivers/hv/"}

// defaults are the modules of a ramdisk, as paths below kernel/ or folders: network cards and storage
// controllers of servers and virtual machines, and the BMC's interface.
var defaults = []string{
	"drivers/virtio/virtio_pci", "drivers/virtio/virtio_mmio",

	"drivers/net/virtio_net", "drivers/net/vmxnet3/", "drivers/net/hyperv/hv_netvsc",
	"drivers/net/ethernet/intel/e1000/", "drivers/net/ethernet/intel/e1000e/",
	"drivers/net/ethernet/intel/igb/",
	"drivers/net/ethernet/intel/igc/", "drivers/net/ethernet/intel/ixgbe/",
	"drivers/net/ethernet/intel/i40e/",
	"drivers/net/ethernet/intel/ice/", "drivers/net/ethernet/broadcom/tg3",
	"drivers/net/ethernet/broadcom/bnx2",
	"drivers/net/ethernet/broadcom/bnx2x/", "drivers/net/ethernet/broadcom/bnxt/",
	"drivers/net/ethernet/realtek/",
	"drivers/net/ethernet/mellanox/mlx4/mlx4_en", "drivers/net/ethernet/mellanox/mlx5/core/",
	"drivers/net/ethernet/amazon/",
	"drivers/net/ethernet/aquantia/", "drivers/net/ethernet/emulex/benet/",
	"drivers/net/ethernet/cavium/thunder/",
	"drivers/net/ethernet/hisilicon/hns3/", "drivers/net/phy/realtek", "drivers/net/phy/broadcom",
	"drivers/net/phy/marvell",

	"drivers/block/virtio_blk", "drivers/nvme/host/nvme", "drivers/pci/controller/vmd",
	"drivers/ata/ahci", "drivers/ata/ata_piix", "drivers/scsi/sd_mod", "drivers/scsi/virtio_scsi",
	"drivers/scsi/megaraid/megaraid_sas", "drivers/scsi/mpt3sas/", "drivers/scsi/hpsa",
	"drivers/scsi/smartpqi/",
	"drivers/scsi/aacraid/", "drivers/scsi/vmw_pvscsi", "drivers/scsi/hv_storvsc", "drivers/scsi/isci/",
	"drivers/message/fusion/mptsas", "drivers/message/fusion/mptspi",

	"drivers/char/ipmi/ipmi_si", "drivers/char/ipmi/ipmi_ssif", "drivers/char/ipmi/ipmi_devintf",
	"fs/efivarfs/", "fs/fat/vfat", "fs/nls/nls_cp437", "fs/nls/nls_ascii",
}

// byName are the default modules that no device asks for.
var byName = []string{"sd_mod", "ipmi_si", "ipmi_devintf", "efivarfs"}

// A found module is a module of the kernel, with its information.
type found struct {
	modules.Info
	path string // below kernel/, with its suffix
	file string // to read
}

// base is the path without .ko and what compresses it.
func (f found) base() string {
	dir, name := path.Split(f.path)
	name, _, _ = strings.Cut(name, ".")
	return dir + name
}

// choose picks the modules that names want, by path or by name, and all their dependencies.
func choose(all []found, want []string) ([]found, error) {
	byName := map[string]*found{}
	byAlias := map[string][]*found{}
	for i := range all {
		f := &all[i]
		byName[f.Name] = f
		for _, a := range f.Aliases {
			// Targets of softdep only; device patterns are many and not needed here.
			if strings.HasPrefix(a, "crypto-") || !strings.ContainsAny(a, "*:") {
				byAlias[a] = append(byAlias[a], f)
			}
		}
	}
	picked := map[string]bool{}
	var add func(f *found)
	add = func(f *found) {
		if picked[f.Name] {
			return
		}
		picked[f.Name] = true
		for _, dep := range f.Depends {
			if d, ok := byName[dep]; ok {
				add(d) // a missing one is built in
			}
		}
		for _, soft := range f.Soft {
			if d, ok := byName[strings.ReplaceAll(soft, "-", "_")]; ok {
				add(d)
			}
			for _, d := range byAlias[soft] {
				add(d)
			}
		}
	}
	for _, w := range want {
		named := !strings.Contains(w, "/")
		hit := false
		for i := range all {
			f := &all[i]
			if f.base() == w || strings.HasSuffix(w, "/") && strings.HasPrefix(f.path, w) ||
				named && f.Name == strings.ReplaceAll(w, "-", "_") {
				add(f)
				hit = true
			}
		}
		if !hit && named {
			return nil, fmt.Errorf("module %s: not among the %d modules of this kernel", w, len(all))
		}
	}
	chosen := slices.DeleteFunc(slices.Clone(all), func(f found) bool { return !picked[f.Name] })
	slices.SortFunc(chosen, func(a, b found) int { return strings.Compare(a.path, b.path) })
	return chosen, nil
}

func isEarly(f found) bool {
	return slices.ContainsFunc(early, func(dir string) bool { return strings.HasPrefix(f.path, dir) })
}
