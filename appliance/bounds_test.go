package appliance

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/deploy"
	"github.com/pxectl/pxectl/internal/testnet"
	"github.com/pxectl/pxectl/inventory"
)

// A wireClient calls the appliance at 10.77.0.1 from a source address, such as any of 127.0.0.0/8.
type wireClient struct {
	t     *testing.T
	http  *http.Client
	nonce string
}

func from(t *testing.T, address string) *wireClient {
	dialer := &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	key := agentCertificate(t, ed25519Key)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, at string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp4", at)
		},
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, // only the agent checks the pin
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return key, nil
			},
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &wireClient{t: t, http: &http.Client{Transport: transport, Timeout: time.Minute}}
}

func (c *wireClient) do(method, url, body string) (status int, answer string) {
	c.t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	if strings.HasPrefix(url, "https:") {
		req.Header.Set("Authorization", "Bearer "+c.nonce)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("%s %.100s: %v", method, url, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

func (c *wireClient) get(path string) (int, string) {
	return c.do("GET", "http://10.77.0.1:8080"+path, "")
}

// agent calls /agent/v1.
func (c *wireClient) agent(path string, in any) (int, string) {
	c.t.Helper()
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(in); err != nil {
		c.t.Fatal(err)
	}
	return c.do("POST", "https://10.77.0.1:8443/agent/v1"+path, body.String())
}

var nonceInScript = regexp.MustCompile(`pxectl\.nonce=(\S+)`)

// boots fetches the boot script of a machine and registers with its nonce.
func (c *wireClient) boots(mac inventory.MAC) (status int, answer string) {
	c.t.Helper()
	_, script := c.get("/boot.ipxe?mac=" + mac.Hyphens())
	m := nonceInScript.FindStringSubmatch(script)
	if m == nil {
		c.t.Fatalf("the script of %s has no nonce: %s", mac, script)
	}
	c.nonce = m[1]
	return c.agent("/register", inventory.Registration{MAC: mac, BootID: bootOf(mac)})
}

// bootOf is a boot id for a machine, in the kernel's format.
func bootOf(mac inventory.MAC) string {
	return "b0000000-0000-4000-8000-" + strings.ReplaceAll(string(mac), ":", "")
}

func strangerMAC(i int) inventory.MAC {
	return inventory.MAC(fmt.Sprintf("52:54:77:%02x:%02x:%02x", i>>16&255, i>>8&255, i&255))
}

// eventually waits until is() is true, for 30 s at most.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// Thousands of forged requests in a machine's name do not push its approval off its timeline.
func TestForgedRequestsPushOutNoApproval(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	m, err := s.engine.AddMachine(t.Context(), "unix:uid=0", deploy.NewMachine{
		Name: "m1", MACs: []inventory.MAC{clientMAC},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := from(t, "127.0.0.66")
	c.get("/boot.ipxe?mac=" + clientMAC.Hyphens()) // its requests are the machine's from now on
	const forged = 2300
	for i := range forged {
		c.get(fmt.Sprintf("/no-such-file-%d-%s", i, strings.Repeat("x", 1000)))
	}
	var events []inventory.Event
	last := fmt.Sprintf("/no-such-file-%d-", forged-1)
	eventually(t, "the last request is on the timeline", func() bool {
		if events, err = s.engine.Events(0, m.ID, 10_000); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(events[len(events)-1].Text, last)
	})
	if events[0].Actor != "unix:uid=0" || len(events) > 2000+10 {
		t.Errorf("the oldest of %d events is %+v, want that the machine was added", len(events), events[0])
	}
	for _, e := range events {
		if len(e.Text) > 256 || len(e.Data["path"]) > 256 {
			t.Fatalf("an event has %d bytes of text and %d of path", len(e.Text), len(e.Data["path"]))
		}
	}
}

// A thousand requests with a path of 30 KB cause a few short lines in the log.
func TestLongPathsAreNotLogged(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	c := from(t, "127.0.0.66")
	c.nonce = "not-one-of-ours"
	const times = 1000
	for range times {
		if status, answer := c.agent("/orders/"+strings.Repeat("x", 30<<10)+"/result", nil); status != 401 ||
			len(answer) > 1<<10 {
			t.Fatalf("a wrong nonce is answered with %d and %d bytes", status, len(answer))
		}
		if status, answer := c.get("/" + strings.Repeat("y", 30<<10)); status != 404 || len(answer) > 1<<10 {
			t.Fatalf("a path that is none is answered with %d and %d bytes", status, len(answer))
		}
	}
	log := s.log.String()
	if n := strings.Count(log, "\n"); n > 2*logPerSource || len(log) > 32<<10 ||
		!strings.Contains(log, "agent call refused") {
		t.Errorf("%d refusals are %d lines with %d bytes in the log: %.1000s", 2*times, n, len(log), log)
	}
}

// Somebody who boots, registers and reports again and again in a few machines' names does not fill the log,
// whatever his agents say. What operators do meanwhile is in it line by line.
func TestAFloodOfReportsIsNotLogged(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	c := from(t, "127.0.0.66")
	problems := make([]string, 32)
	for i := range problems {
		problems[i] = fmt.Sprintf("problem %d: %s", i, strings.Repeat("x", 100))
	}
	const rounds, machines, edits = 200, 40, 100
	for i := range rounds {
		mac := strangerMAC(i % machines)
		if status, answer := c.boots(mac); status != 200 {
			t.Fatalf("register: %d %s", status, answer)
		}
		var order inventory.Order
		status, answer := c.agent("/next", inventory.Ask{BootID: bootOf(mac)})
		if err := json.Unmarshal([]byte(answer), &order); status != 200 || err != nil ||
			order.Do != inventory.DoInspect {
			t.Fatalf("next: %d %s", status, answer)
		}
		report := inventory.Report{
			Problems: problems, BMC: &inventory.BMCReport{Address: fmt.Sprintf("10.77.%d.9", i)},
		}
		for _, id := range []string{order.ID, order.ID, fmt.Sprint("none-", i)} {
			status, answer := c.agent("/orders/"+id+"/result", inventory.Result{
				BootID: bootOf(mac), Error: problems[0], Report: &report,
			})
			if status != 204 {
				t.Fatalf("result of %s: %d %s", id, status, answer)
			}
		}
		if i >= edits {
			continue
		}
		edit := deploy.Edit{Labels: map[string]*string{"round": &order.ID}}
		if _, err := s.engine.EditMachine(t.Context(), "unix:uid=0", string(mac), edit); err != nil {
			t.Fatal(err)
		}
	}
	for i := range machines {
		m, err := s.engine.Machine(string(strangerMAC(i)))
		if err != nil || m.BMC.Proposed == nil {
			t.Fatalf("BMC = %+v, %v, want one reported", m.BMC, err)
		}
		if _, err := s.engine.Approve(t.Context(), "unix:uid=0", string(m.ID),
			deploy.Approval{BMC: &m.BMC.Proposed.Address}); err != nil {
			t.Fatal(err)
		}
	}
	log := s.log.String()
	const kinds = 5 // scripts, what agents say, BMCs, states, results that nobody ordered
	if n := strings.Count(log, "\n") - edits - 2*machines; n > kinds*logPerSource+10 || len(log) > 128<<10 {
		t.Errorf("%d reports are %d lines with %d bytes in the log: %.3000s", rounds, n, len(log), log)
	}
	for said, want := range map[string]int{
		"edited: labels": edits, `"approved`: machines, "discovered → enrolled": machines,
		"the agent registered from 127.0.0.66": 1, "inspect: problem": 1, "no longer stands": logPerSource,
	} {
		if n := strings.Count(log, said); n < want {
			t.Errorf("the log says %q %d times, want %d", said, n, want)
		}
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.String()
}

// A stranger's report has 64 KiB at most, and an approved machine's 256 KiB. What is in it costs no more than
// one transaction.
func TestHugeReports(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	operator, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	c := from(t, "127.0.0.66")
	if status, answer := c.boots(clientMAC); status != 200 {
		t.Fatalf("register: %d %s", status, answer)
	}
	var order inventory.Order
	inspect := func() {
		t.Helper()
		status, answer := c.agent("/next", inventory.Ask{BootID: bootOf(clientMAC)})
		if err := json.Unmarshal([]byte(answer), &order); status != 200 || err != nil ||
			order.Do != inventory.DoInspect {
			t.Fatalf("next: %d %s", status, answer)
		}
	}
	inspect()
	if order.MaxReport != inventory.StrangerReport {
		t.Errorf("a stranger may report %d bytes, want %d", order.MaxReport, inventory.StrangerReport)
	}
	report := func(problems int) (int, string) {
		r := inventory.Report{
			Problems: make([]string, problems), Disks: []inventory.Disk{{Name: "vda", Bytes: 1 << 40}},
		}
		for i := range r.Problems {
			r.Problems[i] = "x"
		}
		return c.agent("/orders/"+order.ID+"/result", inventory.Result{BootID: bootOf(clientMAC), Report: &r})
	}
	if status, answer := report(300_000); status != 413 ||
		!strings.Contains(answer, "more than 69632 bytes") {
		t.Errorf("a report with 300,000 problems is answered with %d %s", status, answer)
	}
	if status, answer := report(15_000); status != 204 { // 60 KB
		t.Errorf("a report with 15,000 problems is answered with %d %s", status, answer)
	}
	m, err := operator.Machine(t.Context(), string(clientMAC))
	if err != nil || len(m.Report.Problems) > 32 {
		t.Errorf("%d problems are kept, %v", len(m.Report.Problems), err)
	}
	all, err := operator.Machines(t.Context())
	if err != nil || len(all) != 1 || all[0].Report != nil || all[0].Hardware == nil ||
		all[0].Hardware.DiskBytes != 1<<40 {
		t.Errorf("the list has %+v, %v, want the machine without its report", all, err)
	}
	if _, err := operator.Approve(t.Context(), string(clientMAC), deploy.Approval{}); err != nil {
		t.Fatal(err)
	}
	if status, answer := c.boots(clientMAC); status != 200 {
		t.Fatalf("register again: %d %s", status, answer)
	}
	inspect()
	if status, answer := report(20_000); status != 204 || order.MaxReport != inventory.KnownReport {
		t.Errorf("a report of 80 KB of an approved machine, which may have %d bytes, is answered with %d %s",
			order.MaxReport, status, answer)
	}
	if status, answer := report(100_000); status != 413 {
		t.Errorf("a report of 400 KB of an approved machine is answered with %d %s", status, answer)
	}
}

// Thousands of invented machines do not keep a new one out, and one call deletes them all.
func TestStrangersLockNobodyOut(t *testing.T) {
	testnet.Need(t, "ip")
	s := newSite(t)
	hostile := from(t, "127.0.0.66")
	for i := range deploy.StrangersPerAddress {
		if status, answer := hostile.boots(strangerMAC(i)); status != 200 {
			t.Fatalf("stranger %d: %d %s", i, status, answer)
		}
	}
	if status, answer := hostile.boots(strangerMAC(5000)); status != 409 ||
		!strings.Contains(answer, "registered from 127.0.0.66") {
		t.Errorf("one too many from an address: %d %s", status, answer)
	}
	// The rest come from 200 addresses, by calls of the engine, which are enough for this.
	for i := deploy.StrangersPerAddress; i < deploy.MaxStrangers; i++ {
		mac := strangerMAC(i)
		c := inventory.Caller{
			Nonce: s.engine.IssueBoot(mac).Nonce, Key: "key", IP: fmt.Sprintf("127.0.1.%d", i%200),
		}
		_, err := s.engine.Register(t.Context(), c, inventory.Registration{MAC: mac, BootID: bootOf(mac)})
		if err != nil {
			t.Fatal(err)
		}
	}
	if status, answer := from(t, "127.0.0.7").boots(clientMAC); status != 200 {
		t.Errorf("a machine that was never seen, beside %d strangers: %d %s", deploy.MaxStrangers, status,
			answer)
	}
	operator, err := api.NewClient(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	n, err := operator.DeleteDiscovered(t.Context())
	t.Logf("%d strangers deleted in %v", n, time.Since(start).Round(time.Millisecond))
	all, listed := operator.Machines(t.Context())
	if n != deploy.MaxStrangers || err != nil || len(all) != 0 || listed != nil {
		t.Errorf("%d deleted, %v, and %d are left, %v; want all %d", n, err, len(all), listed,
			deploy.MaxStrangers)
	}
}
