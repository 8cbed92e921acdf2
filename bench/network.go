package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pxectl/pxectl/internal/testnet"
)

// The network: our server, the peer's, and the client, each in a namespace of its own.
const (
	oursIP   = "10.90.0.1"
	peerIP   = "10.90.0.2"
	clientIP = "10.90.0.3"
	httpPort = 8080
)

type hosts struct{ ours, peer, client testnet.Host }

func network(b *bench) hosts {
	testnet.Bridge(b, "")
	return hosts{
		ours:   testnet.NewHost(b, "ours", oursIP+"/16", "52:54:00:90:00:01"),
		peer:   testnet.NewHost(b, "peer", peerIP+"/16", "52:54:00:90:00:02"),
		client: testnet.NewHost(b, "client", clientIP+"/16", "52:54:00:90:00:03"),
	}
}

// A server is a program that runs until the benchmark ends.
type server struct {
	cmd  *exec.Cmd
	log  string
	stop func() // ends it and its process group; calling it again does nothing
}

// spawn starts a program, and ends its process group with the benchmark.
func (b *bench) spawn(cmd *exec.Cmd) server {
	out, err := os.CreateTemp(b.dir, filepath.Base(cmd.Path)+"-*.log")
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	s := server{cmd, out.Name(), sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		late := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		late.Stop()
	})}
	b.Cleanup(s.stop)
	return s
}

// await polls until ready, and fails with the server's output after a time.
func (b *bench) await(s server, what string, ready func() bool) {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ready() {
			return
		}
	}
	text, _ := os.ReadFile(s.log)
	b.Fatalf("%s: not ready after 15 s:\n%s", what, text)
}

// appliance runs `pxectl serve` with b.dir/data, which may hold files already. It runs in proxy mode, unless
// more of the configuration says otherwise.
func (b *bench) appliance(on testnet.Host, more ...string) server {
	socket := filepath.Join(b.dir, "pxectl.sock")
	config := filepath.Join(b.dir, "appliance.yaml")
	text := fmt.Sprintf("data_dir: %s\nprovisioning:\n  interfaces:\n    - name: eth0\n      address: %s\nhttp:\n  port: %d\napi:\n  socket: %s\n",
		filepath.Join(b.dir, "data"), oursIP, httpPort, socket) + strings.Join(more, "")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	s := b.spawn(on.Command(b.pxectl, "serve", "--config", config))
	b.await(s, "pxectl serve", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

// group lists the processes of the server.
func (s server) group() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		if f := statFields(file); len(f) > 2 && f[2] == strconv.Itoa(s.cmd.Process.Pid) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// statFields are the fields of proc_pid_stat(5) from the third one, the state.
func statFields(file string) []string {
	raw, err := os.ReadFile(file)
	end := bytes.LastIndexByte(raw, ')')
	if err != nil || end < 0 {
		return nil
	}
	return strings.Fields(string(raw[end+1:]))
}

// cpu is the CPU time of the server's threads so far, in user and kernel mode. The scheduler's own account
// has nanoseconds; proc_pid_stat(5) counts ticks of 10 ms.
func (s server) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range s.group() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, file := range tasks {
			raw, _ := os.ReadFile(file)
			ran, _, _ := strings.Cut(string(raw), " ")
			ns, _ := strconv.ParseInt(ran, 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// peakMemory is the largest peak of a server process's resident memory, in MiB.
func (s server) peakMemory() float64 {
	var most float64
	for _, pid := range s.group() {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(raw)) {
			if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kib, _ := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v),
					"kB")), 64)
				most = max(most, kib/1024)
			}
		}
	}
	return most
}

// run runs a program to its end and returns its output.
func (b *bench) run(cmd *exec.Cmd) string {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return stdout.String()
}
