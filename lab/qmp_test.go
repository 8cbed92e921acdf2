package lab

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// fakeQEMU sends a greeting, and answers each line that it reads with the next of answers.
func fakeQEMU(t *testing.T, answers ...string) net.Conn {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		in := bufio.NewReader(theirs)
		if _, err := theirs.Write([]byte(`{"QMP": {"version": {}, "capabilities": []}}` +
			"\r\n")); err != nil {
			return
		}
		for _, a := range answers {
			if _, err := in.ReadString('\n'); err != nil {
				return
			}
			if _, err := theirs.Write([]byte(a + "\r\n")); err != nil {
				return
			}
		}
		_, _ = in.ReadString('\n')
		theirs.Close()
	}()
	return ours
}

func TestQMP(t *testing.T) {
	const ready = `{"return": {}, "id": 1}`
	tests := []struct {
		name   string
		answer string
		want   string
		err    string
	}{
		{name: "answer", answer: `{"return": {"running": true}, "id": 2}`, want: `{"running": true}`},
		{
			name:   "event before the answer",
			answer: `{"event": "STOP", "data": {}}` + "\n" + `{"return": 7, "id": 2}`,
			want:   "7",
		},
		{
			name:   "late answer of another command",
			answer: `{"return": 1, "id": 1}` + "\n" + `{"return": 2, "id": 2}`,
			want:   "2",
		},
		{
			name:   "error",
			answer: `{"error": {"class": "GenericError", "desc": "bootindex 9 has already been used"}, "id": 2}`,
			err:    "qmp test: bootindex 9 has already been used",
		},
		{name: "not JSON", answer: `oops`, err: "unexpected EOF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, err := newQMP(fakeQEMU(t, ready, tt.answer))
			if err != nil {
				t.Fatal(err)
			}
			got, err := q.execute("test", nil)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("execute error = %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || string(got) != tt.want {
				t.Errorf("execute = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestQMPResets(t *testing.T) {
	const reset = `{"event": "RESET", "data": {"guest": true}}`
	q, err := newQMP(fakeQEMU(t, reset+"\n"+`{"return": {}, "id": 1}`+"\n"+strings.Repeat(reset+"\n", 10),
		`{"return": {}, "id": 2}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.execute("cont", nil); err != nil { // unread resets must not block it
		t.Fatal(err)
	}
	if got := len(q.resets); got == 0 {
		t.Error("no reset seen, want some")
	}
}

func TestQMPGoneAtOnce(t *testing.T) {
	ours, theirs := net.Pipe()
	theirs.Close()
	if _, err := newQMP(ours); err == nil || !strings.Contains(err.Error(), "no greeting") {
		t.Errorf("newQMP error = %v, want one with %q", err, "no greeting")
	}
}
