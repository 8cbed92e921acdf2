package erase

import (
	"encoding/binary"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// The kernel's structures have these sizes on 64-bit machines; the ioctl numbers contain the first.
func TestStructuresAreTheKernels(t *testing.T) {
	if n := unsafe.Sizeof(nvmeCommand{}); n != 72 {
		t.Errorf("nvme_passthru_cmd has %d bytes, want 72", n)
	}
	if n := unsafe.Sizeof(sgHeader{}); n != 88 {
		t.Errorf("sg_io_hdr has %d bytes, want 88", n)
	}
}

func TestNVMeCommands(t *testing.T) {
	for name, c := range map[string]struct {
		got                 nvmeCommand
		opcode              uint8
		nsid, cdw10, cdw11  uint32
		atLeast, notForever time.Duration
	}{
		"identify controller":    {got: identify(1, 0), opcode: 0x06, cdw10: 1},
		"identify namespace 3":   {got: identify(0, 3), opcode: 0x06, nsid: 3},
		"sanitize log":           {got: sanitizeLog(), opcode: 0x02, nsid: 0xffffffff, cdw10: 0x007f0081},
		"sanitize blocks":        {got: sanitize(sanitizeBlocks), opcode: 0x84, cdw10: 0x0a},
		"sanitize crypto":        {got: sanitize(sanitizeCrypto), opcode: 0x84, cdw10: 0x0c},
		"leave the failure mode": {got: sanitize(sanitizeExit), opcode: 0x84, cdw10: 0x09},
		"format, user data":      {got: format(1, 0, 0, eraseUser), opcode: 0x80, nsid: 1, cdw10: 0x0200},
		"format, crypto": {
			got: format(1, 0, 0, eraseCrypto), opcode: 0x80, nsid: 1, cdw10: 0x0400,
		},
		"format keeps LBA format 2": {
			got: format(1, 0x02, 0, eraseUser), opcode: 0x80, nsid: 1, cdw10: 0x0202,
		},
		"format keeps metadata": {
			got: format(1, 0x11, 0, eraseUser), opcode: 0x80, nsid: 1, cdw10: 0x0211,
		},
		"format keeps LBA format 17": {
			got: format(1, 0x21, 0, eraseUser), opcode: 0x80, nsid: 1, cdw10: 0x1201,
		},
		"format keeps protection 1": {
			got: format(1, 0, 0x09, eraseUser), opcode: 0x80, nsid: 1, cdw10: 0x0320,
		},
	} {
		if c.got.opcode != c.opcode || c.got.nsid != c.nsid || c.got.cdw10 != c.cdw10 ||
			c.got.timeoutMS == 0 {
			t.Errorf("%s = %+v, want opcode %#x, namespace %#x, cdw10 %#x, and a time-out", name, c.got,
				c.opcode, c.nsid, c.cdw10)
		}
	}
}

func TestParseCaps(t *testing.T) {
	id := make([]byte, 4096)
	if got := parseCaps(id); got != (nvmeCaps{}) {
		t.Errorf("parseCaps(nothing) = %+v", got)
	}
	binary.LittleEndian.PutUint32(id[328:], 0b011)
	binary.LittleEndian.PutUint16(id[256:], 0b10)
	id[524] = 0b101
	if got, want := parseCaps(id),
		(nvmeCaps{
			crypto: true, blocks: true, format: true, formatsAll: true,
			formatCrypto: true,
		}); got != want {
		t.Errorf("parseCaps = %+v, want %+v", got, want)
	}
}

func TestSCSICommands(t *testing.T) {
	for name, c := range map[string]struct{ got, want []byte }{
		"sanitize blocks":        {sanitizeCDB(scsiBlocks, 0), []byte{0x48, 0xa2, 0, 0, 0, 0, 0, 0, 0, 0}},
		"sanitize crypto":        {sanitizeCDB(scsiCrypto, 0), []byte{0x48, 0xa3, 0, 0, 0, 0, 0, 0, 0, 0}},
		"sanitize overwrite":     {sanitizeCDB(scsiOverwrite, 8), []byte{0x48, 0xa1, 0, 0, 0, 0, 0, 0, 8, 0}},
		"leave the failure mode": {sanitizeCDB(scsiExit, 0), []byte{0x48, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0}},
		"one pass of zeros":      {overwriteParameters(), []byte{1, 0, 0, 4, 0, 0, 0, 0}},
		"request sense":          {requestSense(), []byte{3, 0, 0, 0, 252, 0}},
		"ATA identify": {
			ataCDB(ataIdentify, ataPIOIn), []byte{0x85, 0x08, 0x0e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xec, 0},
		},
		"ATA set password": {
			ataCDB(ataSetPassword, ataPIOOut),
			[]byte{0x85, 0x0a, 0x06, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xf1, 0},
		},
		"ATA erase prepare": {
			ataCDB(ataErasePrepare, ataNonData),
			[]byte{0x85, 0x06, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf3, 0},
		},
		"ATA erase unit": {
			ataCDB(ataEraseUnit, ataPIOOut),
			[]byte{0x85, 0x0a, 0x06, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xf4, 0},
		},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	b := passwordBlock(true)
	if len(b) != 512 || b[0] != 2 || string(b[2:2+len(password)]) != password ||
		passwordBlock(false)[0] != 0 || len(password) > 32 {
		t.Errorf("password block = %x", b[:40])
	}
}

func TestParseSense(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		want sense
	}{
		"nothing": {nil, sense{}},
		"fixed, illegal opcode": {
			[]byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0}, sense{key: 5, asc: 0x20},
		},
		"fixed, half sanitized": {
			[]byte{0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x1b, 0, 0x80, 0x80, 0},
			sense{2, 0x04, 0x1b, 0.5},
		},
		"descriptor, quarter": {
			[]byte{0x72, 2, 0x04, 0x1b, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 0x40, 0, 0}, sense{2, 0x04, 0x1b, 0.25},
		},
		"descriptor, after another": {
			[]byte{0x72, 2, 0x04, 0x1b, 0, 0, 0, 12, 3, 2, 0, 0, 2, 6, 0, 0, 0x80, 0x40, 0, 0},
			sense{2, 0x04, 0x1b, 0.25},
		},
		"cut off": {[]byte{0x72, 2}, sense{key: 2}},
	} {
		if got := parseSense(c.data); got != c.want {
			t.Errorf("%s: parseSense(%x) = %+v, want %+v", name, c.data, got, c.want)
		}
	}
}

func FuzzParseSense(f *testing.F) {
	f.Add([]byte{0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x04, 0x1b, 0, 0x80, 0x80, 0})
	f.Add([]byte{0x72, 2, 0x04, 0x1b, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 0x40, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := parseSense(b); s.done < 0 || s.done >= 1 || s.key > 15 {
			t.Errorf("parseSense(%x) = %+v", b, s)
		}
	})
}

func TestParseSecurity(t *testing.T) {
	id := make([]byte, 512)
	put := func(word int, v uint16) { binary.LittleEndian.PutUint16(id[2*word:], v) }
	if got := parseSecurity(id); got != (ataSecurity{}) {
		t.Errorf("parseSecurity(nothing) = %+v", got)
	}
	put(82, 2)
	put(89, 10)
	put(90, 0x8000|400)
	put(128, 0b101001)
	want := ataSecurity{
		supported: true, frozen: true, enhanced: true, normally: 20 * time.Minute,
		thoroughly: 800 * time.Minute,
	}
	if got := parseSecurity(id); got != want {
		t.Errorf("parseSecurity = %+v, want %+v", got, want)
	}
}
