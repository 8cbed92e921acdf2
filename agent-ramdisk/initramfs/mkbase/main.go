// Mkbase builds the base archive of the ramdisk: u-root's core commands in one program, for a
// person on the console, and the agent as /init. It needs the Go toolchain and runs when
// pxectl is built; the archive is embedded in pxectl.
//
//	go run ./agent-ramdisk/initramfs/mkbase -arch amd64 -o agent-ramdisk/initramfs/base/amd64.cpio.zst
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// commands are those of u-root that help a person at a machine.
var commands = strings.Fields(`
	blkid cat chmod cmp cp date dd df dmesg du echo find free gosh gpt grep gzip head hexdump
	hostname insmod ip kexec kill ln ls lsdrivers lsmod mkdir more mount mv netcat
	ping ps pwd rm rmmod seq shasum sleep sort strings stty sync tail tar tee touch umount uname uptime wc`)

func main() {
	arch := flag.String("arch", "amd64", "architecture: amd64 or arm64")
	out := flag.String("o", "", "archive to write")
	version := flag.String("version", "dev", "version that the agent reports")
	flag.Parse()
	if err := run(*arch, *version, *out); err != nil {
		fmt.Fprintln(os.Stderr, "mkbase:", err)
		os.Exit(1)
	}
}

func run(arch, version, out string) error {
	if out == "" {
		return fmt.Errorf("-o: where the archive goes is missing")
	}
	tmp, err := os.MkdirTemp("", "mkbase")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	agent := filepath.Join(tmp, "pxagent")
	if err := goBuild(".", arch, "-trimpath", "-ldflags=-s -w -X main.version="+version, "-o", agent,
		"./agent-ramdisk/cmd/pxagent"); err != nil {
		return err
	}
	busybox := filepath.Join(tmp, "bb.cpio")
	if err := buildCommands(tmp, arch, busybox); err != nil {
		return err
	}
	return pack(agent, busybox, out)
}

func goBuild(dir, arch string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if arch != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+arch)
	}
	return tell(cmd)
}

// buildCommands runs u-root's own builder, in a module of its own so that its many
// dependencies stay out of pxectl's.
func buildCommands(tmp, arch, out string) error {
	const module = "agent-ramdisk/initramfs/bb"
	// Build for this machine: `go tool` would build for the ramdisk's. Without -trimpath, since the tool asks
	// its own runtime for Go's path.
	tool := filepath.Join(tmp, "u-root")
	if err := goBuild(module, "", "-o", tool, "github.com/u-root/u-root"); err != nil {
		return err
	}
	// goshliner: the shell's plain line editor. Its default editor paints the screen, which is no good on a
	// serial console of 115200 baud and in its log.
	args := []string{
		"-go-build-tags=goshliner", "-o", out, "-build=bb", "-initcmd=", "-uinitcmd=", "-defaultsh=gosh",
		"-base=/dev/null", "-tmp-dir", filepath.Join(tmp, "bb"),
	}
	for _, c := range commands {
		args = append(args, "github.com/u-root/u-root/cmds/core/"+c)
	}
	cmd := exec.Command(tool, args...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	return tell(cmd)
}

func tell(cmd *exec.Cmd) error {
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, output)
	}
	return nil
}

// pack writes one archive of both.
func pack(agent, busybox, out string) error {
	f, err := os.Open(busybox)
	if err != nil {
		return err
	}
	defer f.Close()
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(f))
	if err != nil {
		return fmt.Errorf("%s: %w", busybox, err)
	}
	binary, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	records = append(
		records,
		cpio.StaticFile("init", string(binary), 0o755),
		cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.Directory("run", 0o755), cpio.Directory("tmp", 0o1777), cpio.Directory("etc", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
	)
	cpio.MakeAllReproducible(records)
	var raw bytes.Buffer
	w := cpio.NewDedupWriter(cpio.Newc.Writer(&raw))
	if err := cpio.WriteRecordsAndDirs(w, records); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	size := raw.Len()
	// The zstd program and not Go's encoder: it packs a tenth tighter, and the time is spent only here.
	zstd := exec.Command("zstd", "-19", "-T1", "-q", "-f", "-o", out)
	zstd.Stdin = &raw
	if err := tell(zstd); err != nil {
		return err
	}
	st, err := os.Stat(out)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d bytes (agent %d, all %d before compression)\n", out, st.Size(), len(binary), size)
	return nil
}
