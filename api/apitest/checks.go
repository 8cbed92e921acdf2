package apitest

import (
	"fmt"
	"strings"

	"github.com/pxectl/pxectl/api"
)

// ChecksOf finds the doctor's checks of a subject, a line each: "status: text".
func ChecksOf(checks []api.Check, subject string) string {
	var lines []string
	for _, c := range checks {
		if c.Subject == subject {
			lines = append(lines, fmt.Sprintf("%s: %s", c.Status, c.Text))
		}
	}
	return strings.Join(lines, "\n")
}
