package inventory

import "errors"

// A Code tells programs the kind of a problem. It determines the CLI's exit code and the API's HTTP status.
type Code string

// Kinds of problems.
const (
	CodeInvalid  Code = "invalid"   // the request is wrong and will stay so
	CodeNotFound Code = "not-found" // no such machine, image, deployment
	CodeConflict Code = "conflict"  // not in this state; may work later
	CodeRefused  Code = "refused"   // nonce or credentials are wrong
	CodeBMC      Code = "bmc"       // the BMC is silent, refuses or fails
	CodeTimeout  Code = "timeout"   // waited as long as asked
	CodeInternal Code = "internal"  // a fault of ours; the log has more
)

// A Problem is an error for people and programs: its cause, the thing and value it is about, and the next
// move.
type Problem struct {
	Code   Code   `json:"code"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
	Err    error  `json:"-"` // the cause, if any
}

func (p *Problem) Error() string { return p.Detail }
func (p *Problem) Unwrap() error { return p.Err }

// AsProblem finds the Problem in err's chain, or makes one from err.
func AsProblem(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return &Problem{Code: CodeInternal, Detail: err.Error(), Err: err}
}
