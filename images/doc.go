// Package images is the canonical form of an operating-system disk image and the
// reading side of it: the manifest, the chunk codec, and the fetching of chunks over
// HTTP. The agent links it, so it stays light; importing, converting and keeping images
// is the work of images/store.
//
// An image is two files:
//
//   - disk.zst: one zstd frame (RFC 8878) per 4 MiB of the raw image, in order, then the seek table
//     of the zstd seekable format (facebook/zstd, contrib/seekable_format), a
//     skippable frame. `zstd -dc disk.zst` gives the raw image back, so zero chunks have their
//     (tiny) frames too.
//   - manifest.json: where the frames lie, the hash of each frame and of the raw bytes in it. The
//     image's id is the sha256 of this file, so whoever holds the id can check the manifest,
//     and through it every byte that arrives and every byte on a disk.
//
// The package knows nothing of catalogues, of block devices, or of what is in a partition.
package images
