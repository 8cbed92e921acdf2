package tftpd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Opcodes: RFC 1350 section 5, RFC 2347.
const (
	opRead  = 1
	opWrite = 2
	opData  = 3
	opAck   = 4
	opError = 5
	opOack  = 6
)

// maxRequest is how long a request may be, in bytes: RFC 2347 allows 512, and we take twice as much.
const maxRequest = 1024

// A refusal is an error code and a text for the client: RFC 1350 section 5. The text is never that of one of
// our own errors, which may name paths of this host.
type refusal struct {
	code uint16
	text string
}

func (r *refusal) Error() string { return r.text }

var (
	errInternal = &refusal{0, "server error"}
	errBusy     = &refusal{0, "server busy"}
	errNotFound = &refusal{1, "file not found"}
	errReadOnly = &refusal{2, "server does not support write requests"}
	errAccess   = &refusal{2, "access denied"}
	errNoTFTP   = &refusal{4, "not a TFTP request"}
)

// ErrMalformed is a Transfer's error when what came was no TFTP request.
var ErrMalformed = errors.New("not a TFTP request")

// packet is the refusal as an ERROR packet.
func (r *refusal) packet() []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, opError}, r.code)
	return append(append(b, r.text...), 0)
}

// A wish is a parsed read request.
type wish struct {
	name     string
	netascii bool
	options  map[string]string // by name in lower case: RFC 2347 says that case does not matter
}

// parseRequest reads a read or write request. Some ROMs leave the last NUL out.
func parseRequest(b []byte) (w wish, write bool, err error) {
	if len(b) < 2 || len(b) > maxRequest || b[0] != 0 || b[1] != opRead && b[1] != opWrite {
		return w, false, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	write = b[1] == opWrite
	fields := bytes.Split(bytes.TrimSuffix(b[2:], []byte{0}), []byte{0})
	if len(fields) < 2 {
		return w, write, fmt.Errorf("%w: no mode behind the name", ErrMalformed)
	}
	w.name = string(fields[0])
	switch mode := strings.ToLower(string(fields[1])); mode {
	case "", "mail":
		return w, write, fmt.Errorf("%w: mode %q", ErrMalformed, mode)
	case "netascii":
		w.netascii = true
	default: // octet, and other names that old ROMs have for it
	}
	for f := fields[2:]; len(f) >= 2; f = f[2:] {
		if w.options == nil {
			w.options = map[string]string{}
		}
		w.options[strings.ToLower(string(f[0]))] = string(f[1])
	}
	return w, write, nil
}

// blockSize returns the size of the blocks that a client is sent, most at most. It is 512 when the client
// asks for no size (RFC 1350), for less than 512, or for more than RFC 2348 allows; asked is false then.
func (w wish) blockSize(most int) (size int, asked bool) {
	n, err := strconv.Atoi(w.options["blksize"])
	if err != nil || n < minBlock || n > 65464 {
		return minBlock, false
	}
	return min(n, most), true
}

// accepted returns the options that we tell the client in the OACK, with their values. There is no tsize in
// netascii, where the size is not known before the file is sent.
func (w wish) accepted(most, size int) map[string]string {
	told := map[string]string{}
	if block, asked := w.blockSize(most); asked {
		told["blksize"] = strconv.Itoa(block)
	}
	if v, ok := w.options["tsize"]; ok && v == "0" && !w.netascii {
		told["tsize"] = strconv.Itoa(size)
	}
	return told
}

// oack is an OACK packet.
func oack(options map[string]string) []byte {
	b := []byte{0, opOack}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		b = append(append(b, name...), 0)
		b = append(append(b, options[name]...), 0)
	}
	return b
}

// blockPacket is an ACK, or the head of a DATA packet.
func blockPacket(op byte, block uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{0, op}, block)
}
