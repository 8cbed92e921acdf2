package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// A Status is what a check came to.
type Status string

// What a check can come to.
const (
	Pass Status = "pass"
	Warn Status = "warn" // machines boot, and something will bite
	Fail Status = "fail"
)

// A Check is one thing that the appliance looked at in its own house.
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

// Doctor asks the appliance how it is. It takes as long as the slowest BMC, which is bounded.
func (c *Client) Doctor(ctx context.Context) ([]Check, error) {
	l, err := get[Checkup](ctx, c, "/v1/doctor")
	return l.Checks, err
}
