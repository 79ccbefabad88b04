package e2e

import (
	"regexp"
	"syscall"
	"testing"
	"time"
)

// TestShutdownTellsViewers: SIGTERM with a session that streams: its viewer hears why before its connection closes, and the server ends
// in time.
func TestShutdownTellsViewers(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	v := s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "")
	v.mustLive(t)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if reason := v.mustEnd(t); reason != "the server shuts down" {
		t.Errorf("the viewer was told %q", reason)
	}
	select {
	case <-s.done:
	case <-time.After(2 * stopPatience): // twice: other work shares the machine
		t.Error("the server did not end")
	}
	// Each agent says at its start which codecs it found; JPEG is always among them.
	if log := s.stderr.String(); !regexp.MustCompile(`codecs loaded.* codecs=\\"?[^"]*JPEG`).MatchString(log) {
		t.Errorf("no agent logged its codecs:\n%s", tail(log, 4000))
	}
}
