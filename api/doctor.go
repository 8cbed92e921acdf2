package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// A Status is the result of a check.
type Status string

// Results of a check.
const (
	Pass Status = "pass"
	Warn Status = "warn" // machines boot, but something will go wrong later
	Fail Status = "fail"
)

// A Check is one thing that the appliance checked of itself.
type Check struct {
	Subject string `json:"subject" doc:"what was looked at"`
	Status  Status `json:"status" enum:"pass,warn,fail"`
	Text    string `json:"text" doc:"what was found"`
	Next    string `json:"next,omitempty" doc:"the next move"`
}

// Checkup is the answer of the doctor.
type Checkup struct {
	Checks []Check `json:"checks"`
}

func (s *Server) addDoctor(rest huma.API) {
	handle(rest, http.MethodGet, "/v1/doctor",
		"Look at the appliance's own house: ports, network, BMCs, disk, clock", func(ctx context.Context,
			_ *struct{},
		) (*body[Checkup], error) {
			return &body[Checkup]{Checkup{s.doctor(ctx)}}, nil
		})
}

// Doctor has the appliance check itself. It takes as long as the slowest BMC, which is bounded.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	l, err := get[Checkup](ctx, c, "/v1/doctor")
	return l.Checks, err
}
