package subnet

import (
	"net/netip"
	"testing"
)

func TestBroadcast(t *testing.T) {
	for network, want := range map[string]string{
		"10.77.0.0/24": "10.77.0.255", "10.77.0.9/24": "10.77.0.255", "10.64.0.0/11": "10.95.255.255",
		"192.0.2.8/29": "192.0.2.15", "192.0.2.7/32": "192.0.2.7", "0.0.0.0/0": "255.255.255.255",
	} {
		if got := Broadcast(netip.MustParsePrefix(network)); got.String() != want {
			t.Errorf("Broadcast(%s) = %v, want %s", network, got, want)
		}
	}
}
