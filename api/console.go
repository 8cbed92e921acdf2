package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/inventory"
)

// consoleProtocol is what the connection of a console is upgraded to: raw bytes both ways.
const consoleProtocol = "pxectl-console"

var consoleOperation = &huma.Operation{
	OperationID: "console",
	Method:      http.MethodGet,
	Path:        "/v1/machines/{ref}/console",
	Summary:     "Attach to the serial console",
	Description: "Needs the headers `Connection: Upgrade` and `Upgrade: " + consoleProtocol +
		"`. Once the console is attached the answer is " +
		"101 and the connection carries raw bytes both ways.",
	Parameters: []*huma.Param{
		{Name: "ref", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}},
	},
	Responses: map[string]*huma.Response{"101": {Description: "Attached"}},
}

func (s *Server) console(w http.ResponseWriter, r *http.Request) error {
	if !headerHas(r.Header, "Connection", "upgrade") || !headerHas(r.Header, "Upgrade", consoleProtocol) {
		w.Header().Set("Upgrade", consoleProtocol)
		return &Problem{
			Title:  http.StatusText(http.StatusUpgradeRequired),
			Status: http.StatusUpgradeRequired,
			Code:   inventory.CodeInvalid,
			Detail: "a console needs a connection upgrade to " + consoleProtocol,
			Hint:   "use `pxectl console " + r.PathValue("ref") + "`",
		}
	}
	ctx, cancel := whileServing(r)
	defer cancel()
	line := &consoleLine{w: w}
	// A Read of a quiet console must end when the server stops, too.
	unhook := context.AfterFunc(ctx, bug.Recovering(s.log, "end a console", line.hangUp))
	defer unhook()
	err := s.fleet.Console(ctx, actorOf(ctx), r.PathValue("ref"), line, line)
	if !line.end() {
		if err == nil {
			err = &inventory.Problem{
				Code: inventory.CodeBMC, Detail: "the console closed before it was attached",
			}
		}
		return err
	}
	if err != nil && ctx.Err() == nil {
		line.say(err)
	}
	line.hangUp()
	return nil
}

// consoleLine is the caller's end of a console. The connection is upgraded when the console first
// reads or writes, so that "no such machine" and "the BMC is silent" are still plain answers.
type consoleLine struct {
	w http.ResponseWriter

	mu    sync.Mutex
	ended bool // no upgrade any more
	err   error
	conn  net.Conn
	in    io.Reader
}

var errLineClosed = errors.New("console closed")

func (l *consoleLine) upgrade() (net.Conn, io.Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil || l.err != nil {
		return l.conn, l.in, l.err
	}
	if l.ended {
		return nil, nil, errLineClosed
	}
	conn, rw, err := http.NewResponseController(l.w).Hijack()
	if err != nil {
		l.err = err
		return nil, nil, err
	}
	l.conn, l.in = conn, rw.Reader // it may hold bytes that came with the request
	_ = conn.SetDeadline(time.Time{})
	_, l.err = fmt.Fprintf(conn,
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", consoleProtocol)
	return l.conn, l.in, l.err
}

func (l *consoleLine) Read(b []byte) (int, error) {
	_, in, err := l.upgrade()
	if err != nil {
		return 0, err
	}
	return in.Read(b)
}

func (l *consoleLine) Write(b []byte) (int, error) {
	conn, _, err := l.upgrade()
	if err != nil {
		return 0, err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(streamBlocked))
	return conn.Write(b)
}

// end forbids the upgrade from now on, and says whether the connection was upgraded before.
func (l *consoleLine) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	return l.conn != nil
}

// say writes an error to the console, where the person sees it.
func (l *consoleLine) say(err error) {
	p := problemOf(err)
	text := "\r\n[console ended: " + p.Detail
	if p.Hint != "" {
		text += "; " + p.Hint
	}
	_, _ = io.WriteString(l, text+"]\r\n")
}

func (l *consoleLine) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
	}
}

func headerHas(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}
