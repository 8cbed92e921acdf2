package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/inventory"
)

// A selector is a set of labels that a machine must have.
type selector map[string]string

// parseSelector reads "rack=a" or "rack=a,role=web".
func parseSelector(s string) (selector, error) {
	sel := selector{}
	if s == "" {
		return sel, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(part, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if !ok || key == "" {
			return nil, usagef("selector %q: want key=value, several with commas", s)
		}
		if other, twice := sel[key]; twice && other != value {
			return nil, usagef("selector %q: %s cannot be both %q and %q", s, key, other, value)
		}
		sel[key] = value
	}
	return sel, nil
}

func (s selector) matches(m inventory.Machine) bool {
	for key, value := range s {
		if have, ok := m.Labels[key]; !ok || have != value {
			return false
		}
	}
	return true
}

func selectorFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVarP(to, "selector", "l", "", "machines with these labels: key=value[,key=value]")
}

// pick finds the machines that the arguments (names, ids, MACs, patterns) name, or all machines without
// arguments, and keeps those that the selector matches. Each argument must name one machine at least. The
// result is in the order of the arguments; the machines of a pattern are in the order of their names.
func (c *cli) pick(
	ctx context.Context, client *api.Client, args []string, labels string,
) ([]inventory.Machine, error) {
	sel, err := parseSelector(labels)
	if err != nil {
		return nil, err
	}
	all, err := client.Machines(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b inventory.Machine) int { return compareNatural(a.Name, b.Name) })
	picked := all
	if len(args) > 0 {
		if picked, err = named(all, args); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(picked),
		func(m inventory.Machine) bool { return !sel.matches(m) }), nil
}

// picked is pickSome with a client of its own, for commands that have no client yet.
func (c *cli) picked(
	ctx context.Context, args []string, labels string,
) (*api.Client, []inventory.Machine, error) {
	client, err := c.client()
	if err != nil {
		return nil, nil, err
	}
	machines, err := c.pickSome(ctx, client, args, labels)
	return client, machines, err
}

// pickSome is pick for commands that change something: it is an error to name no machine.
func (c *cli) pickSome(
	ctx context.Context, client *api.Client, args []string, labels string,
) ([]inventory.Machine, error) {
	if len(args) == 0 && labels == "" {
		return nil, usageError{
			usagef("which machines? give names, ids, MACs, patterns or --selector"),
			"`pxectl machine list` lists them",
		}
	}
	machines, err := c.pick(ctx, client, args, labels)
	if err == nil && len(machines) == 0 {
		err = &inventory.Problem{
			Code:   inventory.CodeNotFound,
			Detail: fmt.Sprintf("no machine has the labels %s", labels),
			Hint:   "run `pxectl machine list`",
		}
	}
	return machines, err
}

// pickOne is for commands that take a single machine.
func (c *cli) pickOne(ctx context.Context, client *api.Client, arg string) (inventory.Machine, error) {
	machines, err := c.pick(ctx, client, []string{arg}, "")
	if err != nil {
		return inventory.Machine{}, err
	}
	if len(machines) > 1 {
		return inventory.Machine{}, usagef("%q means %d machines (%s); name one", arg, len(machines),
			nameList(machines))
	}
	return machines[0], nil
}

func named(all []inventory.Machine, args []string) ([]inventory.Machine, error) {
	var picked []inventory.Machine
	seen := map[inventory.MachineID]bool{}
	for _, arg := range args {
		found, err := matching(all, arg)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, &inventory.Problem{
				Code:   inventory.CodeNotFound,
				Detail: fmt.Sprintf("no machine %q (have: %s)", arg, nameList(all)),
				Hint:   "run `pxectl machine list`",
			}
		}
		for _, m := range found {
			if !seen[m.ID] {
				seen[m.ID] = true
				picked = append(picked, m)
			}
		}
	}
	return picked, nil
}

// matching lists the machines that one argument names: the one that the appliance would find by it, or those
// that a pattern matches.
func matching(all []inventory.Machine, arg string) ([]inventory.Machine, error) {
	if i, ok := inventory.Find(all, arg); ok {
		return all[i : i+1], nil
	}
	if !strings.ContainsAny(arg, "*?[") {
		return nil, nil
	}
	var found []inventory.Machine
	for _, m := range all {
		ok, err := path.Match(arg, m.Name)
		if err != nil {
			return nil, usagef("pattern %q: %v", arg, err)
		}
		if ok {
			found = append(found, m)
		}
	}
	return found, nil
}

func nameList(machines []inventory.Machine) string {
	const most = 8
	if len(machines) == 0 {
		return "none"
	}
	var names []string
	for _, m := range machines[:min(most, len(machines))] {
		names = append(names, m.Name)
	}
	if len(machines) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// compareNatural compares names as people count: m2 before m10.
func compareNatural(a, b string) int {
	digits := func(s string) int {
		n := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if n < 0 {
			return len(s)
		}
		return n
	}
	whole := cmp.Compare(a, b)
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na == 0 || nb == 0 {
			if a[0] != b[0] {
				return cmp.Compare(a[0], b[0])
			}
			a, b = a[1:], b[1:]
			continue
		}
		x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), whole)
}

// completeMachines completes names for the shell.
func (c *cli) completeMachines(
	cmd *cobra.Command, _ []string, _ string,
) ([]string, cobra.ShellCompDirective) {
	client, err := c.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
	defer cancel()
	machines, _ := client.Machines(ctx)
	var names []string
	for _, m := range machines {
		names = append(names, m.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// gather calls do for every machine, 16 at a time. It returns the results of those that went well and the
// errors of the others, both in the order of the machines.
func gather[T any](
	machines []inventory.Machine, do func(inventory.Machine) (T, error),
) (done []T, err error) {
	const atOnce = 16
	results, errs := make([]T, len(machines)), make([]error, len(machines))
	turn := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, m := range machines {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			results[i], errs[i] = do(m)
		})
	}
	all.Wait()
	for i, m := range machines {
		if errs[i] == nil {
			done = append(done, results[i])
		} else {
			errs[i] = about(m.Name, errs[i])
		}
	}
	return done, joinErrors(errs)
}

// about puts a machine's name before an error that lacks it, unless the error is not about the machine.
func about(name string, err error) error {
	if strings.Contains(err.Error(), name) || errors.Is(err, api.ErrUnreachable) {
		return err
	}
	return fmt.Errorf("%s: %w", name, err)
}
