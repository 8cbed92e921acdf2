package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const qmpTimeout = 20 * time.Second // QEMU answers in milliseconds; a loaded machine may not

// A qmp talks the QEMU Machine Protocol on one connection, one command at a time.
type qmp struct {
	conn    net.Conn
	replies chan qmpMessage
	resets  chan struct{} // the machine was reset, by any cause
	id      int
}

type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	Event  string          `json:"event"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	ID int `json:"id"`
}

// newQMP connects and negotiates.
func newQMP(conn net.Conn) (*qmp, error) {
	q := &qmp{conn: conn, replies: make(chan qmpMessage, 4), resets: make(chan struct{}, 4)}
	go q.read()
	select {
	case m, ok := <-q.replies:
		if !ok || m.QMP == nil {
			return nil, errors.New("qmp: no greeting")
		}
	case <-time.After(qmpTimeout):
		return nil, fmt.Errorf("qmp: no greeting in %s", qmpTimeout)
	}
	_, err := q.execute("qmp_capabilities", nil)
	return q, err
}

// read sorts messages into replies and resets until the connection ends.
func (q *qmp) read() {
	defer close(q.replies)
	dec := json.NewDecoder(q.conn)
	for {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			return
		}
		switch {
		case m.Event == "RESET":
			select {
			case q.resets <- struct{}{}:
			default: // several unread resets count as one
			}
		case m.Event == "":
			q.replies <- m
		}
	}
}

// execute runs one command and waits for its answer.
func (q *qmp) execute(command string, arguments any) (json.RawMessage, error) {
	q.id++
	request := map[string]any{"execute": command, "id": q.id}
	if arguments != nil {
		request["arguments"] = arguments
	}
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	if err := q.conn.SetWriteDeadline(time.Now().Add(qmpTimeout)); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	if _, err := q.conn.Write(append(text, '\n')); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	late := time.After(qmpTimeout)
	for {
		select {
		case m, ok := <-q.replies:
			switch {
			case !ok:
				return nil, fmt.Errorf("qmp %s: %w", command, io.ErrUnexpectedEOF)
			case m.ID != q.id: // the answer to an abandoned command
			case m.Error != nil:
				return nil, fmt.Errorf("qmp %s: %s", command, m.Error.Desc)
			default:
				return m.Return, nil
			}
		case <-late:
			return nil, fmt.Errorf("qmp %s: no answer in %s", command, qmpTimeout)
		}
	}
}
