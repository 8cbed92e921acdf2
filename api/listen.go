package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socketMode lets the owner and the group of the socket in. Its permissions are the CLI's authentication.
const socketMode = 0o660

// maxSocketPath is the room in sockaddr_un (unix(7)) without the final zero.
const maxSocketPath = 107

// ListenUnix listens on a Unix socket at path, with its directory created if need be. The socket that
// a killed process left behind is replaced; one that somebody answers on is an error.
func ListenUnix(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	unlock, err := lock(path + ".lock") // of two that start at once, the second sees the first one's socket
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer unlock()
	if err := checkVacant(path); err != nil {
		return nil, err
	}

	// The socket is made in a directory that nobody else can enter, and moved to its place with its final
	// mode, so there is no moment at which it is open to everybody.
	private, err := os.MkdirTemp(dir, ".px")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer os.RemoveAll(private)
	tempSocket := filepath.Join(private, "s")
	if n := max(len(tempSocket), len(path)); n > maxSocketPath {
		return nil, fmt.Errorf("socket %s: the path is too long: shorten it by %d bytes", path,
			n-maxSocketPath)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tempSocket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it would unlink the temporary name
	var own fs.FileInfo
	if err = os.Chmod(tempSocket, socketMode); err == nil {
		if own, err = os.Lstat(tempSocket); err == nil {
			err = os.Rename(tempSocket, path)
		}
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return &unixListener{UnixListener: l, path: path, own: own}, nil
}

type unixListener struct {
	*net.UnixListener
	path string
	own  fs.FileInfo
}

// Close removes the socket, unless somebody has put another one there.
func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.own) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func checkVacant(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket %s: %w", path, err)
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("socket %s: there is already a file there that is not a socket (%s)", path,
			st.Mode())
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil // nobody listens: its process was killed
	}
	if err != nil {
		return fmt.Errorf("socket %s: somebody may be using it: %w", path, err)
	}
	c.Close()
	return fmt.Errorf("socket %s: another pxectl serve is already listening there", path)
}

// lock takes the flock of a file of our own, which ends with the process. A flock of the directory would not
// do: whoever may read a directory may lock it, and keep us from starting.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if st, err := f.Stat(); err != nil || !ours(st) {
		f.Close()
		return nil, fmt.Errorf("lock %s: it is not a file of ours that only we may open (%v); remove it",
			path, err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// ours says whether a file is a regular one, belongs to us, and nobody else may open it.
func ours(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && st.Mode().IsRegular() && int(sys.Uid) == os.Geteuid() && st.Mode().Perm()&0o077 == 0
}

type actorKey struct{}

// WithActor records who is on the other end. Without an actor, the API refuses every call.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

func actorOf(ctx context.Context) string {
	actor, _ := ctx.Value(actorKey{}).(string)
	return actor
}

// peerActor adds who connected to a Unix socket: SO_PEERCRED, unix(7). The kernel fills it in at connect(2),
// so a client cannot forge it.
func peerActor(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); ctlErr != nil || err != nil {
		return ctx
	}
	return WithActor(ctx, fmt.Sprintf("unix:uid=%d", cred.Uid))
}
