// Package images defines the canonical form of an operating system's disk image, and reads it: the manifest,
// the chunk codec, and the fetching of chunks over HTTP. The agent links it, so it stays light. Package
// images/store imports, converts and keeps images.
//
// An image is two files:
//
//   - disk.zst: one zstd frame (RFC 8878) per 4 MiB of the raw image, in order, then the seek table
//     of the zstd seekable format (facebook/zstd, contrib/seekable_format), a
//     skippable frame. `zstd -dc disk.zst` gives the raw image back, so zero chunks have their
//     (tiny) frames too.
//   - manifest.json: the place of each frame, its hash and that of its raw bytes. The
//     image's id is the sha256 of this file, so whoever holds the id can check the manifest,
//     and through it every byte that arrives and every byte on a disk.
//
// The package knows nothing of catalogues, of block devices, or of what is in a partition.
package images
