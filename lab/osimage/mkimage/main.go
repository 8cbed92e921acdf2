// Mkimage builds one of the OS images that the virtual rack deploys:
//
//	go run ./lab/osimage/mkimage [-cache DIR] -o FILE.raw debian-12|mini|mini-virtio
//
// The kind "kernel" is no image: it fetches Debian's generic kernel, for the architecture of -arch, and
// prints the paths of the kernel and its modules.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/lab/osimage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("mkimage", flag.ExitOnError)
	out := flags.String("o", "", "write the image to this file (default: the kind and .raw)")
	cache := flags.String("cache", ".cache", "keep downloaded packages in this directory")
	arch := flags.String("arch", "", "architecture of the kernel to fetch (default: this machine's)")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "usage: mkimage [-cache DIR] [-o FILE.raw] %v or kernel\n", osimage.Kinds)
		flags.PrintDefaults()
	}
	// The kind may also stand before the flags.
	kind := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		kind, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if kind == "" {
		kind = flags.Arg(0)
	}
	if kind == "" {
		flags.Usage()
		os.Exit(2)
	}
	o := osimage.Options{Cache: *cache, Log: os.Stderr}
	if kind == "kernel" {
		o.Arch = *arch
		meta := "linux-image-" + o.Arch
		if o.Arch == "" {
			meta = "linux-image-amd64"
		}
		k, err := osimage.FetchKernel(ctx, meta, o)
		if err != nil {
			return err
		}
		fmt.Println(k.Image, k.Modules)
		return nil
	}
	if *out == "" {
		*out = kind + ".raw"
	}
	began := time.Now()
	if err := osimage.Build(ctx, osimage.Kind(kind), *out, o); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %s in %.1f s\n", kind, *out, time.Since(began).Seconds())
	return nil
}
