//go:build !race

package disk

const race = false
