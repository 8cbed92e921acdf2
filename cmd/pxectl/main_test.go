package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pxectl": func() {
		// The tests' clock: an hour after the events in the fleet of apitest, or the time that a script sets.
		since, err := time.ParseDuration(os.Getenv("SINCE"))
		if err != nil {
			since = time.Hour
		}
		now := func() time.Time { return apitest.Epoch.Add(since) }
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, now))
	}})
}

// TestScripts runs testdata/*.txtar: the real command against a real API server over a real socket; only
// the fleet behind it is not real. Files named fleet/* choose the fleet.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE") != "",
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
		Condition: func(cond string) (bool, error) {
			if cond != "pty" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			// A container may have no such file, or the file without a device behind it.
			pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
			if err != nil {
				return false, nil
			}
			return true, pty.Close()
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			dir, err := os.MkdirTemp("", "px") // a socket's path must be short
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			fleet := apitest.New()
			if name, err := os.ReadFile(filepath.Join(env.WorkDir, "fleet")); err == nil {
				if fleet, err = fleetNamed(string(bytes.TrimSpace(name))); err != nil {
					return err
				}
			}
			socket := filepath.Join(dir, "s")
			if err := serveFleet(env.Defer, dir, socket, fleet); err != nil {
				return err
			}
			env.Setenv("PXECTL_SOCKET", socket)
			env.Setenv("IMAGES", filepath.Join(dir, "images"))
			example, err := filepath.Abs("../../images/contents/testdata/disk.img.zst")
			if err != nil {
				return err
			}
			env.Setenv("DISK", example)
			return nil
		},
	})
}

// exits is the command of scripts "exits CODE COMMAND...".
func exits(ts *testscript.TestScript, _ bool, args []string) {
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], got, args[0])
	}
}

// serveFleet serves until what it gives to atEnd is called.
func serveFleet(atEnd func(func()), dir, socket string, fleet *apitest.Fleet) error {
	log := slog.New(slog.DiscardHandler)
	images, err := store.Open(filepath.Join(dir, "images"), log)
	if err != nil {
		return err
	}
	l, err := api.ListenUnix(socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- api.Serve(ctx, l,
			api.NewServer(api.Config{
				Fleet: fleet, Doctor: checkup, Images: images, Leases: &apitest.Leases{},
				Version: "9.9.9", Log: log,
			}).Handler(), log)
	}()
	atEnd(func() {
		cancel()
		<-ended
		images.Close()
	})
	return nil
}

// fleetNamed makes the fleets that the scripts ask for.
func fleetNamed(name string) (*apitest.Fleet, error) {
	switch name {
	case "rack", "failing", "halted", "moved":
	default:
		return nil, fmt.Errorf("no fleet %q", name)
	}
	on := inventory.Power{Known: true, On: true, ObservedAt: apitest.Epoch.Add(59 * time.Minute)}
	fleet := apitest.New(
		inventory.Machine{
			Name:       "web1",
			State:      inventory.Available,
			Power:      on,
			BMC:        inventory.BMC{Address: "192.0.2.11", User: "admin", Discovered: true},
			Labels:     map[string]string{"rack": "a", "role": "web"},
			UUID:       "4c4c4544-0000-1000-8000-000000000001",
			Report:     hardwareReport(),
			ReportedAt: apitest.Epoch,
		},
		inventory.Machine{
			Name: "web2", State: inventory.Available, Power: on, BMC: inventory.BMC{Address: "192.0.2.12"},
			Labels: map[string]string{"rack": "a"},
		},
		inventory.Machine{Name: "web10", State: inventory.Discovered, Labels: map[string]string{"rack": "b"}},
		inventory.Machine{
			Name: "db1", State: inventory.Available, Power: inventory.Power{Known: true},
			Maintenance: &inventory.Maintenance{
				Reason: "new power supply", Since: apitest.Epoch, Actor: "unix:uid=0",
			},
		},
	)
	id := func(name string) inventory.MachineID {
		m, _ := fleet.Machine(name)
		return m.ID
	}
	web1, web2 := id("web1"), id("web2")
	for i, text := range []string{
		"DISCOVER from BIOS", "offered undionly.kpxe",
		"fetched undionly.kpxe, 93955 bytes in 0.1s",
	} {
		fleet.Happen(inventory.Event{
			Machine: []inventory.MachineID{web1, web2}[i%2],
			Kind:    []inventory.EventKind{inventory.KindDHCP, inventory.KindDHCP, inventory.KindTFTP}[i],
			Text:    text,
		})
	}
	fleet.Happen(inventory.Event{
		MAC: "52:54:00:99:99:99", Kind: inventory.KindDHCP, Text: "DISCOVER from a stranger \x1b[31m",
	})
	fleet.Happen(inventory.Event{
		Machine: web1, Kind: inventory.KindState, Text: "approved", Actor: "unix:uid=0",
	})
	fleet.Happen(inventory.Event{
		MAC: "52:54:00:00:00:02", Kind: inventory.KindDHCP, Text: "DISCOVER before it registered", Count: 7,
		Since: apitest.Epoch,
	})
	fleet.Happen(inventory.Event{
		Machine: "m-dead",
		Kind:    inventory.KindTFTP,
		Text:    "snponly.efi: 237568 bytes",
		Data:    map[string]string{"took": "45ms", "retransmits": "2"},
	})
	switch name {
	case "failing":
		fleet.FailDeployment("web2", inventory.Failure{
			Step:   string(inventory.WriteImage),
			Reason: "chunk 17 differs from the manifest after 3 attempts",
			Hint:   "check the disk sda, then deploy again",
		})
		fleet.Fail("Power", &inventory.Problem{
			Code: inventory.CodeBMC, Detail: "power off 192.0.2.11:623: no answer", Hint: "ping 192.0.2.11",
		})
		fleet.Fail("Deployments", errors.New("list deployments: record \"d-1\": checksum does not match"))
		fleet.Fail("PowerStatus", &inventory.Problem{
			Code: inventory.CodeTimeout, Detail: "power status: no answer in 30s",
		})
	case "halted":
		fleet.Halt()
	case "moved":
		for machine, address := range map[string]string{
			"web1": "192.0.2.66", "web10": "192.0.2.13",
			"db1": "192.0.2.14",
		} {
			fleet.Report(machine, inventory.BMCProposal{
				Address: address, At: apitest.Epoch.Add(50 * time.Minute), From: "192.0.2.113",
			})
		}
	}
	return fleet, nil
}

func hardwareReport() *inventory.Report {
	return &inventory.Report{
		AgentVersion: "1", Kernel: "6.1.0", Arch: "amd64", Firmware: "uefi",
		System: inventory.System{
			Manufacturer: "QEMU", Product: "Standard PC (Q35)", Serial: "S1", BIOSVersion: "1.16",
			BIOSVendor: "EDK II",
		},
		CPU:    inventory.CPU{Model: "EPYC", Sockets: 1, Cores: 4, Threads: 8},
		Memory: inventory.Memory{Bytes: 16 << 30},
		Disks: []inventory.Disk{
			{
				Name: "nvme0n1", Transport: "nvme", Model: "PM9A3", Serial: "D1", ByPath: "pci-0000:00:05.0",
				Bytes: 960197124096, Content: []string{"gpt", "ext4"},
			},
			{Name: "sda", Transport: "sata", Bytes: 4000787030016, Rotational: true},
		},
		NICs: []inventory.NIC{
			{
				Name: "eno1", MAC: "52:54:00:00:00:01", Driver: "virtio_net", Path: "0000:00:03.0",
				Carrier: true, Mbps: 10000, Boot: true,
			},
		},
	}
}

// checkup is what `pxectl doctor` finds on the scripts' appliance.
func checkup(context.Context) []api.Check {
	return []api.Check{
		{Subject: "ports", Status: api.Pass, Text: "all are open"},
		{
			Subject: "images",
			Status:  api.Warn,
			Text:    "there is none to deploy",
			Next:    "`pxectl image import FILE`",
		},
		{Subject: "ramdisk", Status: api.Fail, Text: "none", Next: "`pxectl ramdisk build`"},
	}
}
