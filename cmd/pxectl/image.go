package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/images/store"
)

func (c *cli) imageCommand() *cobra.Command {
	cmd := group("image", "Import, list, show, verify and delete OS images", c.imageImport(), c.imageList(), c.imageShow(), c.imageVerify(), c.imageDelete())
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
