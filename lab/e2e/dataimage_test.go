package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/pxectl/pxectl/images"
)

// The data partition that withData adds. Together with mini's own chunks, one changed chunk is 2 % of the
// image.
const (
	dataChunks = 36
	phrase     = "a page of the data that came with the image"
)

// withData makes an image of mini with a data partition behind its own.
func (r *rack) withData(name string) string {
	r.t.Helper()
	out := filepath.Join(r.dir, name+".raw")
	if err := exec.Command("cp", "--sparse=always", mini, out).Run(); err != nil {
		r.t.Fatalf("copy %s: %v", mini, err)
	}
	st, err := os.Stat(out)
	if err != nil {
		r.t.Fatal(err)
	}
	begin := st.Size() - 1<<20 // mini's last MiB is for its backup GPT
	end := begin + dataChunks*images.ChunkSize
	if err := os.Truncate(out, end+1<<20); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command("sgdisk", "--move-second-header", fmt.Sprintf("--new=5:%d:%d", begin/512, end/512-1),
		"--change-name=5:data", out)
	if said, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("sgdisk: %v: %s", err, said)
	}
	var text bytes.Buffer
	for page := 0; text.Len() < int(end-begin); page++ {
		fmt.Fprintf(&text, "page %09d: %s\n", page, phrase)
	}
	patch(r.t, out, begin, text.Bytes()[:end-begin])
	return out
}

// changed copies an image with data and changes one chunk.
func changed(t *testing.T, image string) string {
	t.Helper()
	out := image + ".changed"
	if err := exec.Command("cp", "--sparse=always", image, out).Run(); err != nil {
		t.Fatalf("copy %s: %v", image, err)
	}
	noise := make([]byte, images.ChunkSize)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	st, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	patch(t, out, st.Size()/images.ChunkSize/2*images.ChunkSize, noise) // the middle of the image is data
	return out
}

func patch(t *testing.T, file string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}
