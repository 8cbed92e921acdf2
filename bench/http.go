package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pxectl/pxectl/internal/testnet"
)

const downloadSize = 1 << 30

func httpBenchmarks() []benchmark {
	return []benchmark{
		{
			name: "http", peer: "nginx", needs: []string{"ip", "curl", "nginx"},
			rows: []row{
				{
					"http-download", "MB/s", "one curl loads a ramdisk of 1 GiB from a running appliance",
					atLeastPeer(0.95),
				},
				{"http-cpu", "s", "CPU time, user and system, that the server used for it", atMostPeer(1.2)},
			},
			start: httpDownload,
		},
	}
}

// httpDownload compares the download of a ramdisk of 1 GiB from the appliance with that of the same file from
// nginx with sendfile. Both have the file in the page cache.
func httpDownload(b *bench) (ours, peer func() []float64) {
	net := network(b)
	ramdisk := filepath.Join(b.dir, "data", "ramdisk", "amd64")
	if err := os.MkdirAll(ramdisk, 0o755); err != nil {
		b.Fatal(err)
	}
	if err := writeZeros(filepath.Join(ramdisk, "initrd"), downloadSize); err != nil {
		b.Fatal(err)
	}
	appliance := b.appliance(net.ours)

	web := nginx(b, net, ramdisk, "initrd")
	peerURL := fmt.Sprintf("http://%s:%d/initrd", peerIP, httpPort)

	side := func(s server, url string) func() []float64 {
		return func() []float64 {
			before := s.cpu()
			speed := download(b, net.client, url)
			return []float64{speed, (s.cpu() - before).Seconds()}
		}
	}
	return side(appliance, fmt.Sprintf("http://%s:%d/ramdisk/amd64/initrd", oursIP, httpPort)), side(web,
		peerURL)
}

// nginx serves a directory, as the peer; file is one in it.
func nginx(b *bench, net hosts, root, file string) server {
	config := filepath.Join(b.dir, "nginx.conf")
	// As in Debian's nginx.conf, without the log of requests.
	text := fmt.Sprintf(`daemon off; user root; worker_processes auto; pid %[1]s/nginx.pid; error_log %[1]s/nginx.err;
events { worker_connections 768; }
http { sendfile on; tcp_nopush on; access_log off; server { listen %[2]s:%[3]d; root %[4]s; } }
`, b.dir, peerIP, httpPort, root)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	s := b.spawn(net.peer.Command("nginx", "-c", config))
	url := fmt.Sprintf("http://%s:%d/%s", peerIP, httpPort, file)
	b.await(s, "nginx", func() bool {
		return net.client.Command("curl", "-sI", "-o", "/dev/null", url).Run() == nil
	})
	return s
}

// writeZeros writes a file of zeros, without holes, by the MiB. It uses little memory, since this process's
// peak counts for the programs that it starts (ru_maxrss), and other rows show theirs.
func writeZeros(path string, size int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for range size / len(zeros) {
		if _, err := f.Write(zeros); err != nil {
			return err
		}
	}
	return f.Close()
}

// download is the speed of a whole download in MB/s.
func download(b *bench, client testnet.Host, url string) float64 {
	out := b.run(client.Command("curl", "-sS", "--fail", "-o", "/dev/null", "-w",
		"%{size_download} %{time_total}", url))
	size, took, _ := strings.Cut(out, " ")
	seconds, err := strconv.ParseFloat(took, 64)
	if size != strconv.Itoa(downloadSize) || err != nil {
		b.Fatalf("%s: curl says %q, want %d bytes", url, out, downloadSize)
	}
	return downloadSize / 1e6 / seconds
}
