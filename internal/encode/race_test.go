//go:build race

package encode_test

// raceShare divides the work of random scenes: the race detector makes them ten times as long.
const (
	raceShare   = 8
	raceEnabled = true
)
