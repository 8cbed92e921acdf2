package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/images/store"
)

func (c *cli) imageCommand() *cobra.Command {
	cmd := group("image", "Import, list, show and delete OS images", c.imageImport(), c.imageList(), c.imageShow(), c.imageDelete())
	cmd.Aliases = []string{"images"}
	return cmd
}

func (c *cli) imageList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			images, err := client.Images(cmd.Context())
			if err != nil {
				return err
			}
			if len(images) == 0 && c.output == "table" {
				fmt.Fprintln(c.out, "no images yet: `pxectl image import FILE|URL` adds one")
				return nil
			}
			return c.print(images, imageNames(images), func(t *table) { c.imageRows(t, images) })
		},
	}
}

func imageNames(images []store.Info) []string {
	names := make([]string, len(images))
	for i, img := range images {
		names[i] = img.Name
	}
	return names
}

func (c *cli) imageRows(t *table, images []store.Info) {
	t.row("NAME", "ID", "DISK", "STORED", "BOOTS", "IMPORTED")
	for _, img := range images {
		name := img.Name
		if !img.Current {
			name += " (older)"
		}
		t.row(name, img.ID[:min(12, len(img.ID))], binary(img.RawSize), binary(img.DataSize), bootsBy(img), c.ago(img.ImportedAt))
	}
}

func bootsBy(img store.Info) string {
	var by []string
	if img.Contents.BIOS {
		by = append(by, "bios")
	}
	if img.Contents.UEFI {
		by = append(by, "uefi")
	}
	return strings.Join(by, ", ")
}

func (c *cli) imageShow() *cobra.Command {
	return &cobra.Command{
		Use: "show IMAGE", Short: "Show an image", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			img, err := client.Image(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.print(img, []string{img.Name}, func(t *table) {
				t.field("name", img.Name)
				t.field("id", img.ID)
				t.field("disk", fmt.Sprintf("%s (%d bytes), sectors of %d", binary(img.RawSize), img.RawSize, img.SectorSize))
				t.field("zero", binary(img.ZeroBytes))
				t.field("stored", binary(img.DataSize))
				t.field("raw sha256", img.RawSHA256)
				t.field("partitions", strings.Join(words(img.Contents.PartitionTable, fmt.Sprint(img.Contents.Partitions)), ", "))
				t.field("boots", bootsBy(img))
				t.field("imported", stamp(img.ImportedAt))
			})
		},
	}
}

func (c *cli) imageDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete IMAGE...", Aliases: []string{"rm"}, Short: "Delete images", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			var errs []error
			for _, ref := range args {
				if err := client.DeleteImage(cmd.Context(), ref); err != nil {
					errs = append(errs, about(ref, err))
				}
			}
			return severally(errs)
		},
	}
}

func (c *cli) imageImport() *cobra.Command {
	var opt store.ImportOptions
	cmd := &cobra.Command{
		Use: "import FILE|URL|-", Short: "Add an image: raw or qcow2, also as .gz, .xz, .zst or .bz2",
		Example: "  pxectl image import debian-12-genericcloud-amd64.qcow2 --name debian-12\n" +
			"  pxectl image import https://example.com/os.raw.xz --sha256 5f2c…\n" +
			"  ssh builder cat os.raw | pxectl image import - --name os",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opt.Name == "" {
				if opt.Name = imageName(args[0]); opt.Name == "" {
					return usagef("an image from standard input needs --name")
				}
			}
			client, err := c.client()
			if err != nil {
				return err
			}
			src, size, err := c.openSource(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer src.Close()
			opt.Size = size
			board := c.newBoard(cmd.Context(), []string{opt.Name}, len("imported"))
			began := c.now()
			opt.Progress = func(p store.Progress) {
				board.show(0, moment{at: c.now().Sub(began), step: p.Phase, done: uint64(p.Done), total: uint64(p.Total)})
			}
			img, err := client.Import(cmd.Context(), src, opt)
			if err != nil {
				board.close()
				return err
			}
			board.show(0, moment{at: c.now().Sub(began), step: "imported", end: true})
			board.close()
			return c.print(img, []string{img.Name}, func(t *table) { c.imageRows(t, []store.Info{img}) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&opt.Name, "name", "", "name in the catalogue (default: the file's, without its endings)")
	f.StringVar(&opt.SHA256, "sha256", "", "sha256 of the file as it is given; the import fails if it differs")
	f.StringVar(&opt.Format, "format", "", "raw or qcow2 (default: told by the content)")
	return cmd
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
	for _, ending := range []string{".gz", ".xz", ".zst", ".bz2", ".raw", ".img", ".qcow2"} {
		name = strings.TrimSuffix(name, ending)
	}
	if name == "/" || name == "." {
		return ""
	}
	return name
}

func webURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	return u, err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// openSource opens what is to be imported; size is 0 when it cannot be known.
func (c *cli) openSource(ctx context.Context, source string) (src io.ReadCloser, size int64, err error) {
	if source == "-" {
		if _, ok := terminal(c.in); ok {
			return nil, 0, usagef("standard input is a terminal; pipe an image into it")
		}
		return io.NopCloser(c.in), 0, nil
	}
	if _, ok := webURL(source); ok {
		return fetch(ctx, source)
	}
	f, err := os.Open(source)
	if err != nil {
		return nil, 0, err
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

func fetch(ctx context.Context, source string) (io.ReadCloser, int64, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = time.Minute
	transport.DisableCompression = true // --sha256 is of the file as it is there
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, 0, usageError{error: err}
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, 0, fmt.Errorf("fetch %s: the server answered %s", source, resp.Status)
	}
	return resp.Body, max(resp.ContentLength, 0), nil
}
