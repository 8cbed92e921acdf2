// Package store imports disk images, keeps them and serves them. It has everything about images that the
// agent does not need.
//
// A store is a directory:
//
//	<id>/manifest.json   what the image is; the id is its sha256
//	<id>/disk.zst        its bytes (package images says how)
//	<id>/system.json     its contents, as far as they could be read; it may be missing
//	tmp-*/               imports and deletions in progress; the next Open removes leftovers
//
// An image appears by the rename of a finished directory and is immutable from then on, so a crash at any
// moment leaves whole images and leftovers, never half an image.
//
// Names come from the manifests. Several images may carry one name: the name then means
// the one that was imported last (the modification time of its manifest.json), and
// the older ones stay, known by id, until they are deleted. The same bytes imported again under the same
// name are the same image and get the name back; under another name they are
// another image that shares the stored bytes by a hard link.
//
// The package does not fetch: Import reads a stream that the caller opened.
package store
