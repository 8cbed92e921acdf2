// Bench measures the speed of pxectl and of other programs, on the same machine in the same run:
//
//	go run ./bench [-pairs 5] [-json] [-markdown docs/performance.md] [ROW...]
//
// A benchmark measures one or more rows, in a file of its own. Ours and the peer run in turn, and the one
// that goes first changes with every pair. A row prints one line:
//
//	NAME ours=… peer=… ratio=… goal=… ok|short
//
// with the median of each side and the median of the pairs' ratios, which is steadier than the ratio of the
// medians when the machine is busy with other things. A benchmark is skipped, by name, when a program is
// missing. The exit code is 1 when a row misses its goal or fails.
//
// It runs in network and mount namespaces of its own, as root. Peers are Debian's packages (packaging/deps
// bench) and run in namespaces of their own on the same bridge.
package main
