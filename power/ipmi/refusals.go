package ipmi

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/pxectl/pxectl/internal/bug"
	"github.com/pxectl/pxectl/power"
)

const (
	maxRefused  = 2               // refusals after which the same credentials are not tried again …
	refusedTime = 5 * time.Minute // … for so long
	maxRefusals = 1024            // that are kept, of all BMCs: strangers may report any number of addresses
)

// refusals are the credentials that BMCs refused within the last refusedTime. The zero value is ready. They
// outlive the targets: dropping an address and taking it again must not give more tries, which could lock the
// user of the BMC.
type refusals struct {
	mu     sync.Mutex
	key    []byte // random for each process; without it, nothing that is kept gives a password away
	all    map[credentials]refusal
	ending *time.Timer // set while there are refusals
}

// credentials are an address, with a keyed hash of user, password and K_g.
type credentials struct {
	addr netip.AddrPort
	sum  [sha256.Size]byte
}

type refusal struct {
	times int       // in a row
	since time.Time // the last time
}

// mayTry refuses credentials that were just refused twice; then no packet is sent.
func (r *refusals) mayTry(c *controller) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.all[r.credentials(c)]
	if known.times < maxRefused || time.Since(known.since) >= refusedTime {
		return nil
	}
	return fmt.Errorf("%w %d times; not tried again before %s, so that the BMC does not lock the user",
		power.ErrRefused, known.times, known.since.Add(refusedTime).Format(time.TimeOnly))
}

// remember counts a refusal. When there are maxRefusals, it drops the oldest.
func (r *refusals) remember(c *controller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire()
	who := r.credentials(c)
	known, again := r.all[who]
	if !again && len(r.all) >= maxRefusals {
		r.dropOldest()
	}
	if r.all == nil {
		r.all = make(map[credentials]refusal)
	}
	r.all[who] = refusal{known.times + 1, time.Now()}
	if r.ending == nil {
		r.ending = time.AfterFunc(refusedTime, r.end)
	}
}

// accepted forgets earlier refusals of these credentials, because only refusals in a row count.
func (r *refusals) accepted(c *controller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, r.credentials(c))
}

// end drops refusals whose time is over, even when nobody asks for them any more.
func (r *refusals) end() {
	defer bug.Recover(nil, "forget refused passwords")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ending = nil
	if next := r.expire(); len(r.all) > 0 {
		r.ending = time.AfterFunc(next, r.end)
	}
}

// expire drops refusals whose time is over, and returns how long the next one has left.
func (r *refusals) expire() (next time.Duration) {
	next = refusedTime
	for who, known := range r.all {
		left := refusedTime - time.Since(known.since)
		if left <= 0 {
			delete(r.all, who)
			continue
		}
		next = min(next, left)
	}
	return next
}

func (r *refusals) dropOldest() {
	var oldest credentials
	var since time.Time
	for who, known := range r.all {
		if since.IsZero() || known.since.Before(since) {
			oldest, since = who, known.since
		}
	}
	delete(r.all, oldest)
}

func (r *refusals) credentials(c *controller) credentials {
	if r.key == nil {
		r.key = make([]byte, sha256.Size)
		rand.Read(r.key)
	}
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(c.user + "\x00" + c.password + "\x00" + c.kg))
	return credentials{c.addr, [sha256.Size]byte(mac.Sum(nil))}
}
