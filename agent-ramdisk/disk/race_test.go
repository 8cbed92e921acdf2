//go:build race

package disk

const race = true
