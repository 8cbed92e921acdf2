package api_test

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/inventory"
)

func TestConsole(t *testing.T) {
	c, _ := serve(t, apitest.New(inventory.Machine{Name: "m1", BMC: inventory.BMC{Address: "192.0.2.7"}}))
	conn, err := c.Console(t.Context(), "m1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	prompt := make([]byte, len("m1 login: "))
	if _, err := io.ReadFull(in, prompt); err != nil || string(prompt) != "m1 login: " {
		t.Fatalf("console said %q, %v, want a prompt", prompt, err)
	}
	// Each of the 256 bytes comes back, so nothing on the way interprets or changes them.
	sent := make([]byte, 256)
	for i := range sent {
		sent[i] = byte(i)
	}
	want := strings.ToUpper(string(sent))
	if _, err := conn.Write(sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
		t.Errorf("console answered %q, %v, want %q", got, err, want)
	}
	if _, err := io.WriteString(conn, "logout"); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "LOGOUT" {
		t.Errorf("after logout: %q, %v, want LOGOUT and the end", rest, err)
	}
}

func TestConsoleErrors(t *testing.T) {
	fleet := apitest.New(inventory.Machine{Name: "m1", BMC: inventory.BMC{Address: "192.0.2.7"}})
	c, _ := serve(t, fleet)
	if _, err := c.Console(t.Context(), "m9"); problemCode(err) != inventory.CodeNotFound {
		t.Errorf("Console of an unknown machine = %v, want not-found", err)
	}
	fleet.Fail("Console", &inventory.Problem{
		Code: inventory.CodeBMC, Detail: "m1: console 192.0.2.7: no answer",
	})
	if _, err := c.Console(t.Context(), "m1"); problemCode(err) != inventory.CodeBMC {
		t.Errorf("Console of a silent BMC = %v, want a bmc problem", err)
	}
}

// endingConsole ends once it was attached.
type endingConsole struct{ *apitest.Fleet }

func (endingConsole) Console(_ context.Context, _, _ string, _ io.Reader, out io.Writer) error {
	_, _ = io.WriteString(out, "m1 login: ")
	return &inventory.Problem{
		Code: inventory.CodeConflict, Detail: "m1: its BMC was changed", Hint: "open it again",
	}
}

// The console itself says why it ended.
func TestConsoleSaysWhyItEnds(t *testing.T) {
	c, _ := serve(t, endingConsole{
		apitest.New(inventory.Machine{Name: "m1", BMC: inventory.BMC{Address: "192.0.2.7"}}),
	})
	conn, err := c.Console(t.Context(), "m1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const want = "m1 login: \r\n[console ended: m1: its BMC was changed; open it again]\r\n"
	if all, err := io.ReadAll(conn); err != nil || string(all) != want {
		t.Errorf("console said %q, %v, want %q", all, err, want)
	}
}

// TestConsoleEndsWithTheServer: an open console on which nothing happens does not hold up a stop.
func TestConsoleEndsWithTheServer(t *testing.T) {
	fleet := apitest.New(inventory.Machine{Name: "m1", BMC: inventory.BMC{Address: "192.0.2.7"}})
	socket := shortDir(t) + "/s"
	stop := start(t, socket, newHandler(fleet))
	c := newClient(t, socket)
	conn, err := c.Console(t.Context(), "m1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	stop()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the console outlived its server")
	}
}
