// Bench measures how fast pxectl is beside other people's programs, on the same machine in the same run:
//
//	go run ./bench [-pairs 5] [-json] [-markdown docs/performance.md] [ROW...]
//
// A benchmark measures one or more rows, in a file of its own that registers it. Ours and the peer run in
// turn, and who goes first changes with every pair. A row prints one line:
//
//	NAME ours=… peer=… ratio=… goal=… ok|short
//
// with the median of each side and the median of the pairs' ratios, which is steadier than the ratio of the
// medians when the machine is busy with other things. A benchmark that misses a program is skipped, by
// name. The exit code is 1 when a row is short of its goal or broken.
//
// It runs in network and mount namespaces of its own, as root. Peers are other people's programs as Debian
// packages them (packaging/deps bench) and run in namespaces of their own on the same bridge.
package main
