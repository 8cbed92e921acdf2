package boot

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Children starts programs and collects dead ones. Process 1 also gets children that nobody else waits for,
// so one place must do all the waiting.
type Children struct {
	mu   sync.Mutex
	exit map[int]chan struct{}
}

// Collect starts the collecting.
func Collect() *Children {
	c := &Children{exit: map[int]chan struct{}{}}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			c.collect()
		}
	}()
	return c
}

func (c *Children) collect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != nil || pid <= 0 {
			return
		}
		if ch, ok := c.exit[pid]; ok {
			close(ch)
			delete(c.exit, pid)
		}
	}
}

// run starts a program with a controlling terminal, and waits for it.
func (c *Children) run(tty *os.File, argv0 string, argv ...string) error {
	fd := tty.Fd()
	c.mu.Lock() // a child that dies at once must be known before it is collected
	pid, err := syscall.ForkExec(argv0, argv, &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/bbin:/bin", "HOME=/", "TERM=linux", "USER=root"},
		Files: []uintptr{fd, fd, fd},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	})
	ch := make(chan struct{})
	if err == nil {
		c.exit[pid] = ch
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", argv0, err)
	}
	<-ch
	return nil
}

// Shells starts a shell whenever a person presses Enter on the terminal, as long as the terminal exists. It
// calls busy with true when a shell starts and with false when it ends.
func (c *Children) Shells(device string, busy func(bool)) error {
	for {
		if err := c.shell(device, busy); err != nil {
			return err
		}
	}
}

// shell opens the terminal anew each time: when a shell ends, the kernel hangs the terminal up for everybody
// who had it open.
func (c *Children) shell(device string, busy func(bool)) error {
	tty, err := os.OpenFile(device, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	if _, err := bufio.NewReaderSize(tty, 16).ReadString('\n'); err != nil {
		return err
	}
	busy(true)
	defer busy(false)
	fmt.Fprintln(tty, "u-root shell; the agent goes on working. Leave with Ctrl-D or exit.")
	if err := c.run(tty, "/bbin/gosh", "gosh"); err != nil {
		fmt.Fprintln(tty, "no shell:", err)
	}
	return nil
}

// A Screen writes to a terminal. It opens it for each write, for the same reason.
type Screen string

func (s Screen) Write(p []byte) (int, error) {
	tty, err := os.OpenFile(string(s), os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return 0, err
	}
	defer tty.Close()
	return tty.Write(p)
}
