package api_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pxectl/pxectl/api"
	"github.com/pxectl/pxectl/api/apitest"
	"github.com/pxectl/pxectl/images/store"
)

// An import that was interrupted leaves nothing behind.
func TestInterruptedImport(t *testing.T) {
	dir := t.TempDir()
	images, err := store.Open(dir, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { images.Close() })
	socket := filepath.Join(shortDir(t), "s")
	start(t, socket, api.NewServer(api.Config{
		Fleet: apitest.New(), Images: images, Version: "test",
		Log: quiet,
	}).Handler())

	left := func() (n int) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() { // and not the store's lock
				n++
			}
		}
		return n
	}
	ctx, interrupt := context.WithCancel(t.Context())
	source, w := io.Pipe()
	go func() {
		_, _ = w.Write(make([]byte, 8<<20)) // and no end
	}()
	go func() {
		for left() == 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		interrupt()
		w.CloseWithError(context.Canceled)
	}()
	if _, err := newClient(t, socket).Import(ctx, source,
		store.ImportOptions{Force: true, Name: "x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Import = %v, want context.Canceled", err)
	}
	for deadline := time.Now().Add(time.Minute); left() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d entries are left in the store", left())
		}
	}
	if list := images.List(); len(list) != 0 {
		t.Errorf("the store lists %v", list)
	}
}
