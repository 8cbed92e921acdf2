package osimage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// A Kernel is a kernel of Debian's, unpacked and never installed.
type Kernel struct {
	Release string // as uname -r says it
	Image   string
	Modules string // directory
}

// FetchKernel downloads the kernel that a meta package depends on and unpacks it into the cache,
// where the next build finds it.
func FetchKernel(ctx context.Context, meta string, o Options) (Kernel, error) {
	cache, err := filepath.Abs(filepath.Join(o.Cache, "kernels"))
	if err != nil {
		return Kernel{}, err
	}
	apt, err := aptFor(ctx, o.Arch, filepath.Join(cache, "apt-"+o.Arch))
	if err != nil {
		return Kernel{}, err
	}
	depends, err := run(ctx, "", "apt-cache", append(apt, "depends", "--important", meta)...)
	if err != nil {
		return Kernel{}, err
	}
	m := regexp.MustCompile(`Depends: linux-image-(\S+)`).FindStringSubmatch(depends)
	if m == nil {
		return Kernel{}, fmt.Errorf("apt knows no kernel for %s; run `apt-get update`", meta)
	}
	release := m[1]
	dir := filepath.Join(cache, release)
	k := Kernel{
		Release: release,
		Image:   filepath.Join(dir, "boot", "vmlinuz-"+release),
		Modules: filepath.Join(dir, "lib", "modules", release),
	}
	if _, err := os.Stat(k.Image); err == nil {
		return k, nil
	}
	o.logf("kernel: downloading linux-image-%s", release)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return Kernel{}, err
	}
	tmp, err := os.MkdirTemp(cache, "unpack-")
	if err != nil {
		return Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	if _, err := run(ctx, tmp, "apt-get",
		append(apt, "-q", "download", "linux-image-"+release)...); err != nil {
		return Kernel{}, err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return Kernel{}, fmt.Errorf("apt-get download linux-image-%s left %d packages, want 1", release,
			len(debs))
	}
	if _, err := run(ctx, "", "dpkg-deb", "-x", debs[0], filepath.Join(tmp, "x")); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(filepath.Join(tmp, "x"), dir); err != nil && !os.IsExist(err) {
		return Kernel{}, err
	}
	return k, nil
}

// aptFor are apt's options for packages of an architecture: none for this machine's own. For another one, apt
// gets package lists of its own below dir, from this machine's sources.
func aptFor(ctx context.Context, arch, dir string) ([]string, error) {
	if arch == "" {
		return nil, nil
	}
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	options := []string{
		"-o", "APT::Architecture=" + arch, "-o", "APT::Architectures=" + arch,
		"-o", "Dir::State=" + filepath.Join(dir, "state"), "-o", "Dir::State::status=/dev/null",
		"-o", "Dir::Cache=" + filepath.Join(dir, "cache"), "-o", "APT::Sandbox::User=root",
	}
	_, err := run(ctx, "", "apt-get", append(options, "-q", "update")...)
	return options, err
}
