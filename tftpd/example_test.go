package tftpd_test

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/pxectl/pxectl/tftpd"
)

// A server that hands out one file, for a moment.
func Example() {
	server, err := tftpd.Listen(tftpd.Config{
		Addr: "127.0.0.1:0",
		Open: func(_ context.Context, r tftpd.Request) ([]byte, error) {
			if r.Name != "hello" {
				return nil, fs.ErrNotExist
			}
			return []byte("hello, firmware\n"), nil
		},
		Done: func(t tftpd.Transfer) { fmt.Println(t.Name, t.Bytes, t.Err) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(server.Run(ctx))
	// Output: <nil>
}
