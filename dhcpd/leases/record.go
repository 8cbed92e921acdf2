package leases

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"
)

// The file is a line of text and then records:
//
//	mark     1 byte, 0xD7
//	length   2 bytes, of what follows the checksum
//	checksum 4 bytes, CRC-32C of the length and of what follows
//	state 1, flags 1 (1: known, 2: alias), address 4, expires 8 (seconds of Unix time), then
//	client, MAC, host name, reservation: each one byte of length and the bytes
//
// All numbers are big-endian. A later record of an address replaces an earlier one.
const (
	magic      = "pxectl leases 1\n"
	mark       = 0xD7
	headLen    = 7
	fixedLen   = 14
	maxPayload = fixedLen + 4*256
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errRecord  = errors.New("not a whole record")
)

func appendRecord(b []byte, l Lease) []byte {
	start := len(b)
	b = append(b, mark, 0, 0, 0, 0, 0, 0)
	var flags byte
	if l.Known {
		flags |= 1
	}
	if l.Alias {
		flags |= 2
	}
	a := l.Addr.As4()
	b = append(b, byte(l.State), flags)
	b = append(b, a[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Expires.Unix()))
	b = appendText(b, l.Client)
	b = appendText(b, string(l.MAC))
	b = appendText(b, l.Host)
	b = appendText(b, l.Reservation)
	r := b[start:]
	binary.BigEndian.PutUint16(r[1:], uint16(len(r)-headLen))
	binary.BigEndian.PutUint32(r[3:], checksum(r))
	return b
}

// appendText writes at most 255 bytes. Package dhcpd refuses longer identities; a longer host name is cut.
func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(b, byte(len(s))), s...)
}

func checksum(r []byte) uint32 {
	return crc32.Update(crc32.Checksum(r[1:3], castagnoli), castagnoli, r[headLen:])
}

// parseRecord reads the record that b begins with and says how long it is.
func parseRecord(b []byte) (l Lease, n int, err error) {
	if len(b) < headLen+fixedLen || b[0] != mark {
		return l, 0, errRecord
	}
	n = headLen + int(binary.BigEndian.Uint16(b[1:]))
	if n < headLen+fixedLen || n > headLen+maxPayload || n > len(b) {
		return l, 0, errRecord
	}
	r := b[:n]
	if checksum(r) != binary.BigEndian.Uint32(r[3:]) {
		return l, 0, errRecord
	}
	p := r[headLen:]
	l.State = State(p[0])
	l.Known, l.Alias = p[1]&1 != 0, p[1]&2 != 0
	l.Addr = netip.AddrFrom4([4]byte(p[2:6]))
	l.Expires = time.Unix(int64(binary.BigEndian.Uint64(p[6:])), 0)
	p = p[fixedLen:]
	var texts [4]string
	for i := range texts {
		if len(p) < 1 || len(p) < 1+int(p[0]) {
			return Lease{}, 0, errRecord
		}
		texts[i], p = string(p[1:1+int(p[0])]), p[1+int(p[0]):]
	}
	if len(p) > 0 || !slices.Contains([]State{Free, Bound, Declined}, l.State) {
		return Lease{}, 0, errRecord
	}
	l.Client, l.Host, l.Reservation = texts[0], texts[2], texts[3]
	if texts[1] != "" {
		l.MAC = []byte(texts[1])
	}
	return l, n, nil
}

// parseRecords reads all whole records in their order, also those behind damaged bytes. A power cut may leave
// any part of the last write, and each whole record in it is a change that was made, even if nobody was told.
// damaged counts the bytes that belong to no record; last says whether they are all at the end.
func parseRecords(b []byte) (all []Lease, damaged int, last bool) {
	last = true
	for len(b) > 0 {
		l, n, err := parseRecord(b)
		if err != nil {
			damaged++
			b = b[1:]
			continue
		}
		last = damaged == 0
		all = append(all, l)
		b = b[n:]
	}
	return all, damaged, last
}
