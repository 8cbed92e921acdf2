package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/images/contents"
	"github.com/pxectl/pxectl/images/store"
)

func (c *cli) imageCommand() *cobra.Command {
	cmd := group("image", "Import, list, show, verify and delete OS images", c.imageImport(), c.imageList(),
		c.imageShow(), c.imageVerify(), c.imageDelete())
	cmd.Aliases = []string{"images"}
	return cmd
}

const noImages = "no images yet: `pxectl image import FILE|URL` adds one"

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
				fmt.Fprintln(c.out, noImages)
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
	t.row("NAME", "ID", "OS", "ARCH", "BOOTS", "DISK", "STORED", "IMPORTED")
	for _, img := range images {
		sys := system(img)
		t.row(shownName(img), img.ID[:min(12, len(img.ID))], strings.TrimSpace(sys.OS+" "+sys.Version),
			sys.Architecture, bootsBy(img),
			binary(img.RawSize), binary(img.DataSize), c.ago(img.ImportedAt))
	}
}

// shownName tells an image from newer ones of its name.
func shownName(img store.Info) string {
	if img.Current {
		return img.Name
	}
	return img.Name + " (older)"
}

// system describes the operating system in an image.
func system(img store.Info) contents.Software {
	if img.System == nil {
		return contents.Software{}
	}
	return *img.System
}

// bootsBy says which firmware can boot a deployed image. An EFI system partition without a loader, neither
// where firmware looks for one nor a distribution's, does not count.
func bootsBy(img store.Info) string {
	var by []string
	if img.Contents.BIOS {
		by = append(by, "bios")
	}
	if sys := system(img); img.Contents.UEFI &&
		(sys.Loaders == nil || len(sys.Loaders) > 0 || sys.Vendor != "") {
		by = append(by, "uefi")
	}
	return strings.Join(by, ", ")
}

// loadersOf names the loaders on the EFI system partition.
func loadersOf(img store.Info) string {
	sys := system(img)
	switch {
	case sys.Loaders == nil:
		return ""
	case len(sys.Loaders) == 0 && sys.Vendor == "":
		return "none in EFI/BOOT, and none of a distribution that is known"
	}
	var all []string
	for _, name := range sys.Loaders {
		all = append(all, "EFI/BOOT/"+name)
	}
	if sys.Vendor != "" {
		all = append(all, sys.Vendor+", which a deployment copies to EFI/BOOT")
	}
	return strings.Join(all, ", ")
}

func cloudInit(img store.Info) string {
	switch has := system(img).CloudInit; {
	case has == nil:
		return "not known"
	case *has:
		return "in it"
	default:
		return "not in it: no host name, keys or user-data arrive, and it does not call home by itself"
	}
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
				t.field("system", system(img).Name)
				t.field("architecture", system(img).Architecture)
				t.field("cloud-init", cloudInit(img))
				smallest := max(img.RawSize, system(img).Smallest)
				t.field("disk", fmt.Sprintf("%d bytes (%s) at least, sectors of %d", smallest,
					binary(smallest), img.SectorSize))
				t.field("fault", system(img).Fault)
				t.field("zero", binary(img.ZeroBytes))
				t.field("stored", binary(img.DataSize))
				t.field("partitions",
					strings.Join(words(img.Contents.PartitionTable, fmt.Sprint(img.Contents.Partitions)),
						", "))
				t.field("file systems", strings.Join(system(img).Filesystems, ", "))
				t.field("boots", bootsBy(img))
				t.field("loaders", loadersOf(img))
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
			// All are found before the first is deleted: a mistyped name deletes nothing.
			ids, errs := make([]string, len(args)), make([]error, len(args))
			for i, ref := range args {
				img, err := client.Image(cmd.Context(), ref)
				if err != nil {
					errs[i] = about(ref, err)
				}
				ids[i] = img.ID
			}
			if err := joinErrors(errs); err != nil {
				return err
			}
			for i, id := range ids {
				if slices.Contains(ids[:i], id) {
					continue
				}
				if err := client.DeleteImage(cmd.Context(), id); err != nil {
					errs[i] = about(args[i], err)
				}
			}
			return joinErrors(errs)
		},
	}
}
