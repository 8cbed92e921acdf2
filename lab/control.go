package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"time"
)

// The supervisor answers on the Unix socket DIR/lab.sock: one JSON request and one JSON
// response per connection.

type request struct {
	Do      string    `json:"do"` // status, power, slow-disk, down
	Machine string    `json:"machine,omitempty"`
	Action  string    `json:"action,omitempty"`
	Slow    *SlowDisk `json:"slow,omitempty"` // nil: full speed
}

type response struct {
	Error    string   `json:"error,omitempty"`
	Machines []Status `json:"machines,omitempty"`
}

// Status is the present state of a machine.
type Status struct {
	Name     string `json:"name"`
	Firmware string `json:"firmware"`
	MAC      string `json:"mac"`
	UUID     string `json:"uuid"`
	BMC      string `json:"bmc"`   // address, inside the rack
	Power    string `json:"power"` // on, off
	Boot     string `json:"boot"`  // first device of the next boot: pxe, disk
	Console  string `json:"console"`
	PID      int    `json:"pid,omitempty"` // of QEMU, inside the rack
}

const (
	controlTimeout = 60 * time.Second
	maxRequest     = 64 << 10
)

func controlSocket(dir string) string { return filepath.Join(dir, "lab.sock") }

// serveControl answers until the listener closes.
func (s *supervisor) serveControl(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Error("control socket", "err", err)
			time.Sleep(time.Second)
			continue
		}
		go func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(controlTimeout))
			var req request
			if err := json.NewDecoder(io.LimitReader(conn, maxRequest)).Decode(&req); err != nil {
				return
			}
			_ = json.NewEncoder(conn).Encode(s.answer(req))
		}()
	}
}

func (s *supervisor) answer(req request) (resp response) {
	var err error
	switch req.Do {
	case "status":
		for _, m := range s.machines {
			resp.Machines = append(resp.Machines, m.status())
		}
	case "power":
		err = s.order(req.Machine, func(m *machine) (<-chan error, error) { return m.power(req.Action) })
	case "slow-disk":
		err = s.order(req.Machine, func(m *machine) (<-chan error, error) {
			return m.slowDisk(req.Slow), nil
		})
	case "down":
		s.down()
	default:
		err = fmt.Errorf("request %q: have status, power, slow-disk, down", req.Do)
	}
	if err != nil {
		resp.Error = err.Error()
	}
	return resp
}

// order sends an order to a machine and waits until it is done.
func (s *supervisor) order(name string, give func(*machine) (<-chan error, error)) error {
	names := make([]string, len(s.machines))
	for i, m := range s.machines {
		if names[i] = m.Name; m.Name != name {
			continue
		}
		done, err := give(m)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		select {
		case err := <-done:
			return err
		case <-time.After(controlTimeout / 2):
			return fmt.Errorf("%s: not done in %s", name, controlTimeout/2)
		}
	}
	return fmt.Errorf("no machine %q in this rack (have: %s)", name, strings.Join(names, ", "))
}

func (m *machine) status() Status {
	on, pid, boot := m.state()
	power := "off"
	if on {
		power = "on"
	}
	return Status{
		Name: m.Name, Firmware: m.Firmware, MAC: machineMAC(m.number), UUID: machineUUID(m.number),
		BMC: bmcAddress(m.number).String(), Power: power, Boot: string(boot.next()),
		Console: m.console.log.Name(), PID: pid,
	}
}

// ask sends one request to the supervisor of the rack in dir.
func ask(ctx context.Context, dir string, req request) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", controlSocket(dir))
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return response{}, err
	}
	var resp response
	if err := json.NewDecoder(conn).Decode(&resp); err != nil {
		return response{}, fmt.Errorf("the rack's supervisor did not answer: %w", err)
	}
	if resp.Error != "" {
		return resp, errors.New(resp.Error)
	}
	return resp, nil
}
