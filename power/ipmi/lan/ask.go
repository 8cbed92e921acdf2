package lan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"
)

// Ask sends Get Channel Authentication Capabilities (section 22.13), with which every login begins, and waits
// for the answer. The answer proves only that somebody is there: all else is negotiated and proved in the
// login.
func (c *Conn) Ask(ctx context.Context, level types.PrivilegeLevel, timeout time.Duration, tries int) error {
	answer := make([]byte, maxDatagram)
	var err error
	for range tries {
		if _, err = c.Write(channelRequest(byte(level))); err != nil {
			return err
		}
		if err = c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		// Setting the deadline may have replaced the one that the end of ctx had set.
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err = c.Read(answer); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return fmt.Errorf("command Get Channel Authentication Capabilities: %w", err)
}

// Get Channel Authentication Capabilities is an IPMI 1.5 packet (table 13-8), outside a session and without
// authentication.
const (
	oldHeader      = 10 // authentication type, sequence, session id, payload length
	bmcAddress     = 0x20
	consoleAddress = 0x81
	requestNetFn   = 0x06 << 2 // application; that of the answer is the next one
	responseNetFn  = 0x07 << 2
	channelCommand = 0x38
	thisChannel    = 0x8e // the channel of the request; bit 7 asks for what IPMI 2.0 added
	answerSize     = 8    // of an answer without data: addresses, checksums, command, completion code
)

func channelRequest(level byte) []byte {
	m := []byte{bmcAddress, requestNetFn, 0, consoleAddress, 0, channelCommand, thisChannel, level, 0}
	m[2] = checksum(m[:2]) // the sequence number, and the other checksum, are filled in when it is sent
	header := make([]byte, rmcpSize+oldHeader)
	copy(header, []byte{rmcpVersion, 0, 0xff, rmcpIPMI})
	header[rmcpSize+oldHeader-1] = byte(len(m))
	return append(header, m...)
}

// checksum returns the checksum of section 13.8: with it, the sum of all bytes is 0.
func checksum(b []byte) (sum byte) {
	for _, v := range b {
		sum -= v
	}
	return sum
}
