package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"sync/atomic"
	"time"
)

// An intake is the source as it is given: counted, hashed when there is a checksum to hold against it, and
// ended when nobody wants it any more.
type intake struct {
	ctx  context.Context
	src  io.Reader
	sum  hash.Hash // nil: nothing to compare with
	read atomic.Int64
}

func (in *intake) Read(p []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, context.Cause(in.ctx)
	}
	n, err := in.src.Read(p)
	in.read.Add(int64(n))
	if in.sum != nil {
		in.sum.Write(p[:n])
	}
	if err != nil && err != io.EOF {
		err = fmt.Errorf("read the source at byte %d: %w", in.read.Load(), err)
	}
	return n, err
}

// finish reads what lies behind the image (padding of a compressed file), so that the checksum is of the
// whole source, and compares.
func (in *intake) finish(want string) error {
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	if in.sum == nil {
		return nil
	}
	if got := hex.EncodeToString(in.sum.Sum(nil)); got != want {
		return fmt.Errorf("sha256 of the source is %s, want %s (%d bytes read); it was changed or cut on its way, or the checksum is another file's: nothing was kept", got, want, in.read.Load())
	}
	return nil
}

// progressEvery is how often Progress is called.
const progressEvery = 200 * time.Millisecond

// throttle makes a reporter that passes on what is due or final.
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
