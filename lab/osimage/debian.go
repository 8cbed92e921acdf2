package osimage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// debianPackages are installed beside Debian's essential packages, without recommendations.
var debianPackages = []string{
	"linux-image-cloud-amd64", "systemd-sysv", "systemd-resolved", "udev", "dbus", "iproute2", "netbase",
	"ca-certificates",
	"cloud-init", "cloud-guest-utils", "e2fsprogs", "openssh-server", "sudo",
}

// cloudConfig makes the first boot quick and quiet: only the NoCloud data source, one host key, and the
// modules that a deployment's user may try. Only the last stage, which phones home, prints to the console, so
// that the login prompt stays visible. Everything else of cloud-init works as in Debian; users, keys and
// phone_home come with the seed.
const cloudConfig = `datasource_list: [NoCloud, None]
ssh_genkeytypes: [ed25519]
ssh_deletekeys: true
apt_preserve_sources_list: true
no_ssh_fingerprints: true
output:
  init: ">> /var/log/cloud-init-output.log"
  config: ">> /var/log/cloud-init-output.log"
  final: "| tee -a /var/log/cloud-init-output.log"
system_info:
  network:
    renderers: [networkd]
cloud_init_modules: [bootcmd, write-files, growpart, resizefs, set_hostname, update_hostname, users-groups, ssh]
cloud_config_modules: [set-passwords, timezone, runcmd]
cloud_final_modules: [package-update-upgrade-install, write-files-deferred, scripts-vendor, scripts-per-instance, scripts-user, phone-home, final-message]
`

// debianFiles exist before the packages are configured, so that the initrd is built once, with them.
var debianFiles = map[string]string{
	"etc/cloud/cloud.cfg.d/90_pxectl.cfg": cloudConfig,
	// The cloud kernel has NVMe and ext4 built in. It has no AHCI: a SATA disk behind AHCI does not boot.
	"etc/initramfs-tools/conf.d/pxectl": "MODULES=list\nCOMPRESS=zstd\n",
	"etc/initramfs-tools/modules":       "virtio_pci\nvirtio_blk\nvirtio_scsi\nsd_mod\nata_piix\n",
	"etc/hostname":                      "unseeded\n",
	"etc/hosts":                         "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
	"etc/machine-id":                    "", // made at the first boot
}

// debianTree builds a Debian 12 from its packages. mmdebstrap takes the mirror from this machine's own
// apt sources.
func debianTree(ctx context.Context, work string, o Options) (rootfs, error) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return rootfs{}, fmt.Errorf("mmdebstrap is not installed; run: apt-get install --no-install-recommends mmdebstrap")
	}
	if os.Geteuid() != 0 {
		return rootfs{}, fmt.Errorf("a Debian tree with its owners and devices needs root")
	}
	root := rootfs{dir: filepath.Join(work, "root"), uuid: uuid.NewString(), spare: 128 * mib}
	overlay := filepath.Join(work, "overlay")
	if err := writeFiles(overlay, debianFiles); err != nil {
		return rootfs{}, err
	}
	o.logf("debian-12: installing packages (about a minute)")
	if _, err := run(ctx, work, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
		"--include="+strings.Join(debianPackages, ","),
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--essential-hook=sync-in "+overlay+" /",
		"bookworm", root.dir); err != nil {
		return rootfs{}, err
	}
	// The image must not have what identifies a machine.
	keys, err := filepath.Glob(filepath.Join(root.dir, "etc/ssh/ssh_host_*"))
	if err != nil {
		return rootfs{}, err
	}
	for _, k := range keys {
		if err := os.Remove(k); err != nil {
			return rootfs{}, err
		}
	}
	if _, err := run(ctx, "", "systemctl", "--root="+root.dir, "enable", "systemd-networkd.service",
		"systemd-resolved.service"); err != nil {
		return rootfs{}, err
	}
	// apt's timers would take the processor in the middle of a test's measurement.
	if _, err := run(ctx, "", "systemctl", "--root="+root.dir, "mask", "apt-daily.timer",
		"apt-daily-upgrade.timer", "e2scrub_reap.service"); err != nil {
		return rootfs{}, err
	}
	return root, writeFiles(root.dir, map[string]string{
		"boot/grub/grub.cfg": grubConfig(root.uuid),
		"etc/fstab":          "UUID=" + root.uuid + " / ext4 errors=remount-ro 0 1\n",
		"etc/machine-id":     "",
		"etc/hostname":       "unseeded\n",
	})
}
