//go:build !race

package encode_test

const (
	raceShare   = 1
	raceEnabled = false
)
