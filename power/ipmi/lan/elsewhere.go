package lan

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/internal/bug"
)

// Elsewhere asks a silent BMC once more, and returns the other address from which an answer came. A BMC with
// several addresses may answer from another one than it was asked at, and a connected socket does not receive
// that. Elsewhere does not prove that the answer is from this BMC.
func Elsewhere(
	ctx context.Context, bmc netip.AddrPort, level types.PrivilegeLevel, timeout time.Duration,
	log *slog.Logger,
) (other netip.AddrPort, ok bool) {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return other, false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx,
		bug.Recovering(log, "end a wait for a BMC", func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }))
	defer stop()
	request := channelRequest(byte(level))
	l := login{tag: 1}
	l.ask(request[rmcpSize:])
	if _, err := conn.WriteToUDPAddrPort(request, bmc); err != nil ||
		conn.SetReadDeadline(time.Now().Add(timeout)) != nil || ctx.Err() != nil {
		return other, false
	}
	buf := make([]byte, maxDatagram)
	for range maxAnswers {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return other, false
		case err != nil || n < rmcpSize+oldHeader || !l.channel(buf[rmcpSize:n]).ok:
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		return from, from != bmc
	}
	return other, false
}
