package store

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync/atomic"
	"time"
)

// An intake reads the source. It counts the bytes, hashes them when there are checksums to compare, and ends
// when ctx does.
type intake struct {
	ctx  context.Context
	src  io.Reader
	sums []checksum
	read atomic.Int64
}

// A checksum is one that the caller gave with the source.
type checksum struct {
	name string
	want string // lower-case hex
	hash hash.Hash
}

// checksums are those that the caller gave.
func (o ImportOptions) checksums() ([]checksum, error) {
	var sums []checksum
	for _, c := range []checksum{{"sha256", o.SHA256, sha256.New()}, {"sha512", o.SHA512, sha512.New()}} {
		given := c.want
		if c.want = strings.ToLower(strings.TrimSpace(given)); c.want == "" {
			continue
		}
		if b, err := hex.DecodeString(c.want); err != nil || len(b) != c.hash.Size() {
			return nil, fmt.Errorf("%s %.140q: want %d hex digits, the first word of a line in a %sSUMS file",
				c.name, given, hex.EncodedLen(c.hash.Size()), strings.ToUpper(c.name))
		}
		sums = append(sums, c)
	}
	return sums, nil
}

func (in *intake) Read(p []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, context.Cause(in.ctx)
	}
	n, err := in.src.Read(p)
	in.read.Add(int64(n))
	for _, c := range in.sums {
		c.hash.Write(p[:n])
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read the source at byte %d: %w", in.read.Load(), err)
	}
	return n, err
}

// finish reads the rest behind the image (padding of a compressed file), so that a checksum is of the whole
// source, and compares.
func (in *intake) finish() error {
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	for _, c := range in.sums {
		if got := hex.EncodeToString(c.hash.Sum(nil)); got != c.want {
			return fmt.Errorf("%s of the source is %s, want %s (%d bytes read); "+
				"it was changed or cut on its way, or the checksum is another file's: nothing was kept",
				c.name, got, c.want, in.read.Load())
		}
	}
	return nil
}

// progressEvery is the time between two calls of Progress.
const progressEvery = 200 * time.Millisecond

// throttle wraps a reporter: it passes on values that are due or final.
func throttle(f func(Progress)) func(p Progress, final bool) {
	var last time.Time
	return func(p Progress, final bool) {
		if f == nil || !final && time.Since(last) < progressEvery {
			return
		}
		last = time.Now()
		f(p)
	}
}
