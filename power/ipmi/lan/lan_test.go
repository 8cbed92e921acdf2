package lan

import (
	"bytes"
	"net"
	"slices"
	"testing"

	"github.com/bougou/go-ipmi/pkg/crypto"
	"github.com/bougou/go-ipmi/pkg/rmcpplus"
	"github.com/bougou/go-ipmi/pkg/types"
)

func TestWindow(t *testing.T) {
	for _, c := range []struct {
		name  string
		comes []uint32
		fresh []bool
	}{
		{"one after the other", []uint32{1, 2, 3}, []bool{true, true, true}},
		{"again", []uint32{1, 1, 2, 1, 2}, []bool{true, false, true, false, false}},
		{"out of order", []uint32{1, 4, 2, 3, 2, 5}, []bool{true, true, true, true, false, true}},
		{"zero is outside of sessions", []uint32{0, 1, 0}, []bool{false, true, false}},
		{"many lost", []uint32{1, 100_000, 100_001, 1, 2}, []bool{true, true, true, false, false}},
		{
			"the window's end",
			[]uint32{64, 1, 65, 1, 2, 66, 2, 3},
			[]bool{true, true, true, false, true, true, false, true},
		},
		{"a jump of the whole window", []uint32{1, 65, 2, 1}, []bool{true, true, true, false}},
		{
			"the last number",
			[]uint32{1, 1<<32 - 1, 1<<32 - 1, 1<<32 - 2, 5},
			[]bool{true, true, false, true, false},
		},
	} {
		var w window
		var got []bool
		for _, n := range c.comes {
			got = append(got, w.fresh(n))
		}
		if !slices.Equal(got, c.fresh) {
			t.Errorf("%s: fresh(%d) = %v, want %v", c.name, c.comes, got, c.fresh)
		}
	}
}

// Suites other than 3 and 17 are not asked for, whatever the library is told.
func TestUnsafeSuitesAreNotAskedFor(t *testing.T) {
	for id := types.CipherSuiteID0; id <= types.CipherSuiteID19; id++ {
		here, there := net.Pipe()
		go func() {
			buf := make([]byte, maxDatagram)
			for {
				if _, err := there.Read(buf); err != nil {
					return
				}
			}
		}()
		auth, integrity, crypt, _ := types.GetCipherSuiteAlgorithms(id)
		a, i, c := rmcpplus.NewAlgorithmPayloads(auth, integrity, crypt)
		request := (&rmcpplus.OpenSessionRequest{
			AuthenticationPayload: a, IntegrityPayload: i,
			ConfidentialityPayload: c,
		}).Pack()
		header := &types.SessionHeader20{
			AuthType:      types.AuthTypeRMCPPlus,
			PayloadType:   types.PayloadTypeRmcpOpenSessionRequest,
			PayloadLength: uint16(len(request)),
		}
		_, err := New(t.Context(), here, Secrets{},
			nil).Write(slices.Concat(types.NewRmcpHeader().Pack(), header.Pack(), request))
		if ok := id == types.CipherSuiteID3 || id == types.CipherSuiteID17; ok != (err == nil) {
			t.Errorf("suite %d: Write(Open Session Request) = %v, want an error: %v", id, err, !ok)
		}
		_ = here.Close()
		_ = there.Close()
	}
}

// Before the session, nothing but messages of a login is sent.
func TestNothingElseIsSentBeforeTheSession(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	for kind := range byte(0x40) {
		header := &types.SessionHeader20{
			AuthType: types.AuthTypeRMCPPlus, PayloadType: types.PayloadType(kind), PayloadLength: 9,
		}
		if _, err := New(t.Context(), here, Secrets{},
			nil).Write(slices.Concat(types.NewRmcpHeader().Pack(), header.Pack(),
			make([]byte, 9))); err == nil {
			t.Errorf("Write(payload type %#02x) before the session = nil, want an error", kind)
		}
	}
}

// Packets that the library sends in one second get different initialization vectors, and decrypt to what it
// sent.
func TestInitializationVectors(t *testing.T) {
	for integrity, k1 := range map[types.IntegrityAlg][]byte{
		types.IntegrityAlg_HMAC_SHA1_96:    bytes.Repeat([]byte{1}, 20),
		types.IntegrityAlg_HMAC_SHA256_128: bytes.Repeat([]byte{1}, 32),
	} {
		s := &session{id: 7, integrity: integrity, k1: k1, k2: bytes.Repeat([]byte{2}, 20)}
		size, _ := crypto.IntegrityAuthCodeLen(integrity)
		plain := append(bytes.Repeat([]byte{3}, ipmiSize), 1, 2, 3, 4, 5, 6, 7, 7) // with its padding
		text, err := crypto.EncryptAES(plain, s.k2[:16], make([]byte, ivSize))
		if err != nil {
			t.Fatal(err)
		}
		d := append([]byte{formatRMCPP, flags, 7, 0, 0, 0, 1, 0, 0, 0, byte(ivSize + len(text)), 0},
			make([]byte, ivSize)...)
		d = append(append(append(d, text...), 0, 7), make([]byte, size)...)
		seen := map[string]bool{}
		for n := range 3 {
			sent := slices.Clone(d)
			sent[6] = byte(n + 1)
			if err := s.encryptAnew(sent); err != nil {
				t.Fatal(err)
			}
			seen[string(sent[headerSize:headerSize+ivSize])] = true
			if !s.genuine(sent) {
				t.Errorf("%s: it is not what a BMC would believe: %x", integrity, sent)
			}
			if got, err := crypto.DecryptAES(sent[headerSize+ivSize:headerSize+ivSize+len(text)], s.k2[:16],
				sent[headerSize:headerSize+ivSize]); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s: it says %x, %v, want %x", integrity, got, err, plain)
			}
		}
		if len(seen) != 3 {
			t.Errorf("%s: %d vectors for three packets", integrity, len(seen))
		}
		for _, cut := range []int{headerSize, headerSize + ivSize, len(d) - 1} {
			if err := s.encryptAnew(slices.Clone(d[:cut])); err == nil {
				t.Errorf("%s: %d bytes are sent", integrity, cut)
			}
		}
		inClear := slices.Clone(d)
		inClear[1] = 0
		if err := s.encryptAnew(inClear); err == nil {
			t.Errorf("%s: clear text is sent", integrity)
		}
	}
}
