package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
)

func (c *cli) imageVerify() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "verify IMAGE...|--all",
		Short: "Read images again and compare every byte with what was imported",
		Long: "Read images from the medium. " +
			"Check the sum of each stored frame, the hash of each chunk of the disk and the hash\n" +
			"of the whole. The exit code is 1 when something is damaged.",
		RunE: func(cmd *cobra.Command, refs []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			shown := refs
			switch {
			case all && len(refs) > 0:
				return usagef("give images or --all, not both")
			case all:
				list, err := client.Images(cmd.Context())
				if err != nil {
					return err
				}
				if len(list) == 0 && c.output == "table" {
					fmt.Fprintln(c.out, noImages)
					return nil
				}
				shown = nil
				for _, img := range list {
					refs, shown = append(refs, img.ID), append(shown, shownName(img))
				}
			case len(refs) == 0:
				return usageError{
					usagef("which image? give its name, or --all"), "`pxectl image list` lists them",
				}
			}
			verdicts := []store.Verdict{}
			var errs []error
			for i, ref := range refs {
				v, err := c.verify(cmd, ref, shown[i])
				if err != nil {
					errs = append(errs, about(shown[i], err))
					continue
				}
				verdicts = append(verdicts, v)
				if v.Damaged > 0 {
					errs = append(errs, damaged(v))
				}
			}
			if len(verdicts) > 0 || len(refs) == 0 {
				names := make([]string, len(verdicts))
				for i, v := range verdicts {
					names[i] = v.Image.Name
				}
				if err := c.print(verdicts, names, func(t *table) { verdictRows(t, verdicts) }); err != nil {
					return err
				}
			}
			return joinErrors(errs)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "verify all images, also older ones of the same name")
	return cmd
}

func (c *cli) verify(cmd *cobra.Command, ref, shown string) (store.Verdict, error) {
	client, err := c.client()
	if err != nil {
		return store.Verdict{}, err
	}
	bars := c.newProgress(cmd.Context(), []string{shown[:min(len(shown), 40)]}, len("damaged"))
	defer bars.close()
	began := c.now()
	v, err := client.VerifyImage(cmd.Context(), ref, func(p store.Progress) {
		bars.show(0, moment{
			at: c.now().Sub(began), step: p.Phase, done: uint64(p.Done), total: uint64(p.Total),
		})
	})
	if err == nil {
		bars.show(0, moment{at: c.now().Sub(began), step: soundness(v), end: true, failed: v.Damaged > 0})
	}
	return v, err
}

func soundness(v store.Verdict) string {
	if v.Damaged > 0 {
		return "damaged"
	}
	return "good"
}

func verdictRows(t *table, verdicts []store.Verdict) {
	t.row("NAME", "ID", "DISK", "STORED", "VERDICT")
	for _, v := range verdicts {
		img := v.Image
		t.row(img.Name, img.ID[:min(12, len(img.ID))], binary(img.RawSize), binary(img.DataSize),
			soundness(v))
	}
}

// shownDamage is how many lines of damage the CLI prints; -o json has all of them.
const shownDamage = 5

// damaged says where an image is damaged, and what to do.
func damaged(v store.Verdict) error {
	id := v.Image.ID[:min(12, len(v.Image.ID))]
	var text strings.Builder
	fmt.Fprintf(&text, "image %s (%s) is damaged (%d of its chunks)", v.Image.Name, id, v.Damaged)
	for i, d := range v.Damage {
		if i == shownDamage {
			fmt.Fprintf(&text, "\n  and %d more", v.Damaged-shownDamage)
			break
		}
		text.WriteString("\n  " + d.Reason)
		if d.Chunk >= 0 {
			fmt.Fprintf(&text, " (bytes %d-%d of the disk)", d.RawOffset, d.RawOffset+d.RawLength-1)
		}
	}
	return &inventory.Problem{
		Code: inventory.CodeInternal, Detail: text.String(),
		Hint: fmt.Sprintf("`pxectl image delete %s`, then import it again; "+
			"the disk or the memory of the appliance may be going bad", id),
	}
}
