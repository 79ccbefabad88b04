package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock.dev/penstock/internal/compute/procfs"
)

// TestSlowClients: handshakes and headers that do not come to an end hold up nobody and are cut off.
func TestSlowClients(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir(), "--tls", "on")
	at := net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "443")
	dial := func() net.Conn {
		c, err := net.DialTimeout("tcp", at, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	var slow []net.Conn
	for k := range 200 {
		c := dial()
		switch k % 4 {
		case 0: // nothing at all
		case 1: // the beginning of a handshake: a record of 512 bytes, of which two come
			_, _ = c.Write([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00})
		case 2, 3: // a handshake, and the beginning of a request or nothing
			tc := tls.Client(c, &tls.Config{RootCAs: s.roots(), ServerName: s.info.EndpointAddresses[0].Dial})
			if err := tc.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if k%4 == 2 {
				_, _ = tc.Write([]byte("GET / HTTP/1.1\r\nHost: "))
			}
		}
		slow = append(slow, c)
	}
	if b, err := talkTrusting(t, s.roots(), "", at); err != nil || !strings.HasPrefix(b, "HTTP/1.1 200") {
		t.Errorf("beside slow clients: %.40q, %v", b, err)
	}
	for k, c := range slow {
		_ = c.SetReadDeadline(time.Now().Add(patience)) // the copy says it
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("slow client %d: %v, want its connection ended", k%4, err)
		}
	}
}

// TestDescriptorLimits: the server takes all descriptors that it may have, its agents get few, and too low a limit is told.
func TestDescriptorLimits(t *testing.T) {
	needE2E(t)
	t.Parallel()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var log lockedBuffer
	cmd := exec.CommandContext(t.Context(), "prlimit", "--nofile=600:9000", bin, "dev", "--data-dir", dir, "--api-addr", freePort(t), "--public-addr", freePort(t))
	cmd.Stderr = &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // the wait says it
		_ = cmd.Wait()
	}()
	until(t, "dev.json", func() bool { _, err := os.Stat(filepath.Join(dir, "dev.json")); return err == nil })
	if soft, hard := filesOf(t, cmd.Process.Pid); soft < 8999 || hard != 9000 { // the runtime leaves one
		t.Errorf("the server may open %d of %d files", soft, hard)
	}
	until(t, "agents with few descriptors", func() bool { // one that starts has not given up the server's yet
		all, err := procfs.List()
		if err != nil {
			t.Fatal(err)
		}
		agents := 0
		for _, p := range procfs.Descendants(all, cmd.Process.Pid) {
			if p.PPID != cmd.Process.Pid {
				continue
			}
			agents++
			if soft, _ := filesOf(t, p.PID); soft > 4096 {
				return false
			}
		}
		return agents > 0
	})
	if text := log.String(); !strings.Contains(text, "too few files for 10,000 connections") || !strings.Contains(text, "room=") {
		t.Errorf("it said %q", text)
	}
}

// filesOf are the limits of a process.
func filesOf(t *testing.T, pid int) (soft, hard int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, 0 // it has ended
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if _, err := fmt.Sscan(rest, &soft, &hard); err != nil {
				t.Fatal(err)
			}
		}
	}
	return soft, hard
}
