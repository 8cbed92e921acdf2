package images

import (
	"math/bits"

	"lukechampine.com/blake3/guts"
)

// HashName names the hash of the chunks in the manifest. docs/decisions/0007-blake3.md has the figures behind
// the choice.
const HashName = "blake3"

// HashChunk computes the hash of the manifest's sums and hashes: BLAKE3 with 32 bytes of output.
//
// The module's own Sum256 starts a goroutine for every 16 KiB. The store and the agent hash chunks on all
// cores already, and the agent has 64 MiB for all its work. HashChunk allocates nothing, and is as fast on
// one core.
func HashChunk(raw []byte) Hash {
	root := subtree(raw, 0)
	root.Flags |= guts.FlagRoot
	out := guts.WordsToBytes(guts.CompressNode(root))
	return Hash(out[:len(Hash{})])
}

// leafSize is the number of BLAKE3 chunks for one instruction stream.
const leafSize = guts.MaxSIMD * guts.ChunkSize

// subtree is the node over b, whose first byte is that of chunk number counter: the left child covers the
// largest power of two of chunks that leaves something for the right one (BLAKE3 specification, section 2.1).
func subtree(b []byte, counter uint64) guts.Node {
	if len(b) == leafSize {
		return guts.CompressBuffer((*[leafSize]byte)(b), leafSize, &guts.IV, counter, 0)
	}
	if len(b) < leafSize {
		var buf [leafSize]byte
		copy(buf[:], b)
		return guts.CompressBuffer(&buf, len(b), &guts.IV, counter, 0)
	}
	left := 1 << (bits.Len(uint(len(b)-1)) - 1)
	return guts.ParentNode(
		guts.ChainingValue(subtree(b[:left], counter)),
		guts.ChainingValue(subtree(b[left:], counter+uint64(left/guts.ChunkSize))),
		&guts.IV, 0,
	)
}
