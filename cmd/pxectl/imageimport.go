package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/images/download"
	"github.com/pxectl/pxectl/images/store"
)

func (c *cli) imageImport() *cobra.Command {
	var opt store.ImportOptions
	cmd := &cobra.Command{
		Use: "import FILE|URL|-", Short: "Add an image: raw or qcow2, also as .gz, .xz, .zst, .bz2 or .lz4",
		Example: "  pxectl image import debian-12-genericcloud-amd64.qcow2 --name debian-12\n" +
			"  pxectl image import https://example.com/os.raw.xz --sha256 5f2c…\n" +
			"  ssh builder cat os.raw | pxectl image import - --name os",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkSource(args[0]); err != nil {
				return err
			}
			if opt.Name == "" {
				opt.Name = imageName(args[0])
			}
			switch {
			case opt.Name != "":
			case args[0] == "-":
				return usagef("an image from standard input needs --name")
			default:
				return usagef("%s names no file that the image could be called after: give --name", args[0])
			}
			if err := opt.Check(); err != nil {
				return usage(err)
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			bars := c.newProgress(cmd.Context(), []string{opt.Name}, len("imported"))
			began := c.now()
			var mu sync.Mutex // one goroutine reads the source, another one reports progress
			note := func(text string) {
				mu.Lock()
				defer mu.Unlock()
				bars.note(text)
			}
			src, size, err := c.openSource(cmd.Context(), args[0], opt.SHA256 != "" || opt.SHA512 != "", note)
			if err != nil {
				bars.close()
				return err
			}
			defer src.Close()
			opt.Size = size
			opt.Progress = func(p store.Progress) {
				mu.Lock()
				defer mu.Unlock()
				bars.show(0, moment{
					at: c.now().Sub(began), step: p.Phase, done: uint64(p.Done), total: uint64(p.Total),
				})
			}
			watched := &watchedSource{r: src}
			img, err := client.Import(cmd.Context(), watched, opt)
			if err != nil {
				bars.close()
				if watched.empty.Load() {
					err = hinted(err, "nothing came from "+args[0]+
						": is it the right one, and has the program that writes it ended well?")
				}
				if cmd.Context().Err() != nil {
					fmt.Fprintf(c.err, "nothing is kept of %s\n", opt.Name)
				}
				return err
			}
			bars.show(0, moment{at: c.now().Sub(began), step: "imported", end: true})
			bars.close()
			return c.print(img, []string{img.Name}, func(t *table) { c.imageRows(t, []store.Info{img}) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&opt.Name, "name", "", "name in the catalogue (default: the file's name without extensions)")
	f.StringVar(&opt.SHA256, "sha256", "",
		"SHA-256 of the file as it is given, compressed or not; the import fails if it differs")
	f.StringVar(&opt.SHA512, "sha512", "", "SHA-512 of the file, likewise")
	f.BoolVar(&opt.Force, "force", false, "keep the image even if no machine could boot it")
	f.StringVar(&opt.Format, "format", "", "raw, qcow2 or auto: found from the content (default auto)")
	return cmd
}

// A watchedSource notices when there is nothing in it. The reader may be another goroutine.
type watchedSource struct {
	r     io.Reader
	some  bool
	empty atomic.Bool
}

func (w *watchedSource) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.some = w.some || n > 0
	if errors.Is(err, io.EOF) && !w.some {
		w.empty.Store(true)
	}
	return n, err
}

// imageName makes "debian-12" of "…/debian-12.qcow2.xz".
func imageName(source string) string {
	if source == "-" {
		return ""
	}
	name := filepath.Base(source)
	if u, ok := webURL(source); ok {
		name = path.Base(u.Path)
	}
	for _, ending := range []string{".gz", ".xz", ".zst", ".bz2", ".lz4", ".raw", ".img", ".qcow2"} {
		name = strings.TrimSuffix(name, ending)
	}
	if name == "/" || name == "." {
		return ""
	}
	return name
}

// checkSource refuses URLs that are neither http nor https, which would otherwise be taken for files.
func checkSource(source string) error {
	scheme, _, ok := strings.Cut(source, "://")
	if _, web := webURL(source); !ok || web {
		return nil
	}
	if _, err := os.Stat(source); err == nil {
		return nil
	}
	if scheme == "http" || scheme == "https" {
		return usagef("%s: the address has no host", source)
	}
	return usageError{
		usagef("%s: no way to fetch from %s:// (have: http, https)", source, scheme),
		"fetch it with another program and pipe it in: `pxectl image import - --name NAME`",
	}
}

func webURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	return u, err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// openSource opens the image to import. checked says that a checksum was given. size is 0 when it is unknown.
// note prints why a download may be slow.
func (c *cli) openSource(
	ctx context.Context, source string, checked bool, note func(string),
) (src io.ReadCloser, size int64, err error) {
	if source == "-" {
		if _, ok := terminal(c.in); ok {
			return nil, 0, usagef("standard input is a terminal; pipe an image into it")
		}
		return io.NopCloser(c.in), 0, nil
	}
	if _, ok := webURL(source); ok {
		s, err := download.Open(ctx, source, download.Options{
			Checked: checked, Retry: func(at int64, why error, wait time.Duration) {
				note(fmt.Sprintf("%v; going on at %s in %s", why, binary(at), took(wait)))
			},
		})
		if err != nil {
			return nil, 0, hinted(err,
				"the file is fetched by this host, over https_proxy or http_proxy where these are set: "+
					"is the address right? `curl -I` tries it")
		}
		return s, s.Size(), nil
	}
	f, err := os.Open(source)
	if err != nil {
		return nil, 0, hinted(err, "give a file of this host, an http or https URL, or - for standard input")
	}
	st, err := f.Stat()
	switch {
	case err == nil && st.IsDir():
		err = fmt.Errorf("import %s: is a directory, not an image", source)
	case err == nil && st.Mode().IsRegular():
		size = st.Size()
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, size, nil
}
