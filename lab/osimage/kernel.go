package osimage

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// A Kernel is one of Debian's, unpacked and never installed.
type Kernel struct {
	Release string // as uname -r says it
	Image   string
	Modules string // directory
}

// FetchKernel downloads the kernel that a meta package depends on and unpacks it into the cache,
// where the next build finds it.
func FetchKernel(ctx context.Context, meta string, o Options) (Kernel, error) {
	depends, err := run(ctx, "", "apt-cache", "depends", "--important", meta)
	if err != nil {
		return Kernel{}, err
	}
	m := regexp.MustCompile(`Depends: linux-image-(\S+)`).FindStringSubmatch(depends)
	if m == nil {
		return Kernel{}, fmt.Errorf("apt knows no kernel for %s; run `apt-get update`", meta)
	}
	release := m[1]
	cache, err := filepath.Abs(filepath.Join(o.Cache, "kernels"))
	if err != nil {
		return Kernel{}, err
	}
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
	if _, err := run(ctx, tmp, "apt-get", "-q", "download", "linux-image-"+release); err != nil {
		return Kernel{}, err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return Kernel{}, fmt.Errorf("apt-get download linux-image-%s left %d packages, want 1", release, len(debs))
	}
	if _, err := run(ctx, "", "dpkg-deb", "-x", debs[0], filepath.Join(tmp, "x")); err != nil {
		return Kernel{}, err
	}
	if err := os.Rename(filepath.Join(tmp, "x"), dir); err != nil && !os.IsExist(err) {
		return Kernel{}, err
	}
	return k, nil
}
