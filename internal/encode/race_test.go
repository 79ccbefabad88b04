//go:build race

package encode_test

// raceShare divides the work of long tests: the race detector makes it ten times as long, and random scenes have no races to find.
const raceShare = 4
