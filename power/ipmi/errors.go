package ipmi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/pxectl/pxectl/power"
	"github.com/pxectl/pxectl/power/ipmi/lan"
)

var (
	// errSuite comes with ErrUnsupported or ErrSilent: the next cipher suite may work.
	errSuite   = errors.New("cipher suite")
	errGarbled = errors.New("answer not understood")
)

// later says whether the same request may succeed in a moment, in a new session.
func later(err error) bool { return errors.Is(err, power.ErrBusy) || errors.Is(err, errGarbled) }

// fail makes the error that says what was being done, to which BMC, and what a person can do about it.
func (c *controller) fail(doing string, err error) error {
	e := &power.Error{Target: c.addr.String(), Doing: doing, Err: err}
	elsewhere, _ := errors.AsType[*elsewhereError](err)
	switch {
	case elsewhere != nil && elsewhere.from.Port() == c.addr.Port():
		e.Hint = fmt.Sprintf("a BMC with several addresses answers from the one of its route back: "+
			"use that one if it is this BMC's (`pxectl machine edit NAME --bmc %s`), or correct its routes",
			elsewhere.from.Addr())
	case elsewhere != nil:
		e.Hint = "something between changes the BMC's address or port (NAT, a firewall): " +
			"reach it without that"
	case errors.Is(err, errSuite):
		e.Hint = "enable cipher suite 17 or 3 on the BMC"
	case errors.Is(err, power.ErrSilent):
		e.Hint = "check the BMC's address, cable and VLAN, and that IPMI over LAN is enabled on it"
	case errors.Is(err, lan.ErrKey) && c.kg == "":
		e.Hint = "the user and its password are right, and the BMC has a key of its own (K_g), " +
			"or somebody answers in its place: `pxectl machine edit NAME --bmc-kg-file FILE`"
	case errors.Is(err, lan.ErrKey):
		e.Hint = "the user and its password are right, and the BMC's key (K_g) is another one: " +
			"`pxectl machine edit NAME --bmc-kg-file FILE`; an empty file takes it away"
	case errors.Is(err, power.ErrRefused):
		e.Hint = fmt.Sprintf("set the user and password of this BMC with `pxectl machine edit` "+
			"(tried user %q)", c.user)
	case errors.Is(err, power.ErrPrivilege) && doing == doingConsole:
		e.Hint = fmt.Sprintf("give user %q the privilege level Administrator on the BMC's LAN channel, "+
			"or let Operators use its SOL (`ipmitool sol set privilege-level operator`)", c.user)
	case errors.Is(err, power.ErrUnsupported) && doing == doingConsole:
		e.Hint = "enable serial over LAN on the BMC (`ipmitool sol set enabled true`), " +
			"and in the machine's firmware the redirection to that serial port"
	case errors.Is(err, power.ErrPrivilege):
		e.Hint = fmt.Sprintf("give user %q the privilege level Operator on the BMC's LAN channel", c.user)
	case errors.Is(err, power.ErrBusy):
		e.Hint = "wait a minute; if it stays so, reset the BMC itself (`ipmitool mc reset cold`)"
	}
	return e
}

// opening explains an error of opening a session. doing is the step of the login.
func opening(ctx context.Context, doing string, err error) error {
	if ended := over(ctx); ended != nil {
		return ended
	}
	if code, ok := types.IsResponseError(err); ok {
		switch code.CompletionCode() {
		case 0x80, 0x81: // Set Session Privilege Level, section 22.18: not for this user, not on this channel
			return fmt.Errorf("%w: the privilege level is too low", power.ErrPrivilege)
		}
		return explain(ctx, err)
	}
	if status, ok := errors.AsType[*types.RmcpStatusError](err); ok {
		return rmcp(status.StatusCode())
	}
	switch {
	case errors.Is(err, lan.ErrPassword):
		return power.ErrRefused
	case errors.Is(err, lan.ErrKey):
		return err // no other try: each leaves half a session in one of the BMC's few slots
	case errors.Is(err, lan.ErrAlgorithms):
		return fmt.Errorf("%w: %w: %s", errSuite, power.ErrUnsupported, oneLine(err))
	case errors.Is(err, os.ErrDeadlineExceeded) && doing == doingOpen:
		// The BMC has answered before, but not to this suite: some BMCs drop what they do not know.
		return fmt.Errorf("%w: %w to Open Session", errSuite, power.ErrSilent)
	case errors.Is(err, os.ErrDeadlineExceeded) && doing == doingLogin:
		return fmt.Errorf("%w to the login of this user: %s", power.ErrSilent,
			"some BMCs ignore users that they do not know")
	}
	err = explain(ctx, err)
	if errors.Is(err, power.ErrSilent) {
		return err
	}
	return fmt.Errorf("open session: %w", err)
}

// rmcp makes an error of a status code of table 13-15.
func rmcp(status types.RmcpStatusCode) error {
	text := status.String()
	switch status {
	case types.RmcpStatusCodeNoResToCreateSess, types.RmcpStatusCodeNoResToCreateSessAtRole:
		return fmt.Errorf("%w: %s", power.ErrBusy, text)
	case types.RmcpStatusCodeInvalidSessionID, types.RmcpStatusCodeInactiveSessionID:
		return fmt.Errorf("%w: %s", errGarbled, text)
	case types.RmcpStatusCodeUnauthorizedName, types.RmcpStatusCodeInvalidIntegrityCheckValue:
		return power.ErrRefused
	case types.RmcpStatusCodeInvalidRole, types.RmcpStatusCodeUnauthorizedRoleOfPriLevel:
		return fmt.Errorf("%w: %s", power.ErrPrivilege, text)
	case types.RmcpStatusCodeInvalidAuthAlg, types.RmcpStatusCodeInvalidIntegrityAlg,
		types.RmcpStatusCodeNoMatchingAuthPayload,
		types.RmcpStatusCodeNoMatchingIntegrityPayload, types.RmcpStatusCodeInvalidConfidentAlg,
		types.RmcpStatusCodeNoCipherSuiteMatch, types.RmcpStatusCodeIllegalParameter:
		return fmt.Errorf("%w: %w: %s", errSuite, power.ErrUnsupported, text)
	}
	return fmt.Errorf("%w: open session: status %#02x", errGarbled, uint8(status))
}

// explain makes an error of package power, or errGarbled, of an error of the library.
func explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if code, ok := types.IsResponseError(err); ok {
		return completion(code.CompletionCode())
	}
	if ended := over(ctx); ended != nil {
		return ended
	}
	text := oneLine(err)
	switch {
	case strings.Contains(text, "connection refused"):
		return fmt.Errorf("%w: nothing listens on that port", power.ErrSilent)
	case strings.Contains(text, "no route to host"), strings.Contains(text, "network is unreachable"):
		return fmt.Errorf("%w: no route to that address", power.ErrSilent)
	case silent(text), errors.Is(err, os.ErrDeadlineExceeded):
		return power.ErrSilent
	}
	return fmt.Errorf("%w: %s", errGarbled, text)
}

// silent says whether text is one of the library's three messages for no answer in time.
func silent(text string) bool {
	return strings.Contains(text, "timed out") || strings.Contains(text, "no matching IPMI response") ||
		strings.Contains(text, "no UDP datagram matched")
}

// completion makes an error of a generic completion code (table 5-2).
func completion(code types.CompletionCode) error {
	kind := power.ErrDeclined
	switch code {
	case 0xC0, 0xC3, 0xC4, 0xD2: // node busy, timeout, out of space, initialisation in progress
		kind = power.ErrBusy
	// No such parameter, command or LUN; out of range, invalid, disabled.
	case 0x80, 0xC1, 0xC2, 0xC9, 0xCC, 0xD6:
		kind = power.ErrUnsupported
	case 0xD4:
		kind = power.ErrPrivilege
	case 0xD5:
		kind = errors.New("not possible in the machine's present state")
	}
	return fmt.Errorf("%w (completion code %#02x, %s)", kind, uint8(code), code)
}

// over returns the context's error. It also does so in the moment between the deadline and the end of ctx:
// the library ends a read at the deadline and then calls it a timeout.
func over(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
