package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/pxectl/pxectl/images/store"
	"github.com/pxectl/pxectl/inventory"
	"github.com/pxectl/pxectl/power"
)

// Problem is an inventory.Problem on the wire (RFC 9457, with the members code and hint of our own).
type Problem struct {
	Title  string         `json:"title"`
	Status int            `json:"status"`
	Code   inventory.Code `json:"code"`
	Detail string         `json:"detail"`
	Hint   string         `json:"hint,omitempty" doc:"the next move"`
}

const problemType = "application/problem+json"

func (p *Problem) Error() string { return p.Detail }

// GetStatus tells huma the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType tells huma that this is no plain JSON.
func (p *Problem) ContentType(string) string { return problemType }

// statusOf is the HTTP status of each code. Refused is 403 here, because whoever reaches the API has been let
// in already. Agents get 401.
var statusOf = map[inventory.Code]int{
	inventory.CodeInvalid:  http.StatusUnprocessableEntity,
	inventory.CodeNotFound: http.StatusNotFound,
	inventory.CodeConflict: http.StatusConflict,
	inventory.CodeRefused:  http.StatusForbidden,
	inventory.CodeBMC:      http.StatusBadGateway,
	inventory.CodeTimeout:  http.StatusGatewayTimeout,
	inventory.CodeInternal: http.StatusInternalServerError,
}

// problemOf makes the answer to err.
func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	var p *inventory.Problem
	if !errors.As(err, &p) {
		p = inventory.AsProblem(err)
		if b, ok := errors.AsType[*power.Error](err); ok {
			p.Code, p.Hint = inventory.CodeBMC, b.Hint
		} else if errors.Is(err, store.ErrNotFound) {
			p.Code, p.Hint = inventory.CodeNotFound, "run `pxectl image list`"
		} else if errors.Is(err, context.DeadlineExceeded) {
			p.Code = inventory.CodeTimeout
		}
	}
	status, ok := statusOf[p.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	return &Problem{
		Title: http.StatusText(status), Status: status, Code: p.Code, Detail: p.Detail, Hint: p.Hint,
	}
}

func codeOf(status int) inventory.Code {
	switch {
	case status == http.StatusNotFound:
		return inventory.CodeNotFound
	case status == http.StatusConflict:
		return inventory.CodeConflict
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return inventory.CodeRefused
	case status == http.StatusRequestTimeout:
		return inventory.CodeTimeout
	case status >= 500:
		return inventory.CodeInternal
	default:
		return inventory.CodeInvalid
	}
}

func init() {
	// huma makes the errors of its own validation, and the error schema of the OpenAPI document, with
	// this variable. There is one per process and no other user of huma here.
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		details := make([]string, 0, len(errs))
		for _, err := range errs {
			if d, ok := err.(*huma.ErrorDetail); ok && d.Location != "" {
				err = fmt.Errorf("%s: %s", d.Location, d.Message)
			}
			if err != nil {
				details = append(details, err.Error())
			}
		}
		if len(details) > 0 {
			msg = strings.Join(details, "; ")
		}
		return &Problem{Title: http.StatusText(status), Status: status, Code: codeOf(status), Detail: msg}
	}
}

func writeProblem(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the caller is gone if this fails
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v)
}

func invalid(format string, args ...any) *inventory.Problem {
	return &inventory.Problem{Code: inventory.CodeInvalid, Detail: fmt.Sprintf(format, args...)}
}
