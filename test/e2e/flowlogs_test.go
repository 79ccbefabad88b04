package e2e

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock.dev/penstock/internal/wire/flowlog"
)

// flowLogs are the records that `penstock flow-logs --raw` prints.
func (s *server) flowLogs(args ...string) (records []flowlog.Record) {
	s.t.Helper()
	out, err := s.penstock(append([]string{"flow-logs", "--raw"}, args...)...)
	if err != nil {
		if strings.Contains(out, "there are no flow logs") { // the first interval has not ended
			return nil
		}
		s.t.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(out) {
		r, err := flowlog.Parse(strings.TrimSuffix(line, "\n"))
		if err != nil {
			s.t.Fatalf("penstock flow-logs printed %q: %v", line, err)
		}
		if r.Account != s.info.AccountID || r.End < r.Start || time.Since(time.Unix(r.End, 0)) > 2*time.Hour {
			s.t.Errorf("record %+v", r)
		}
		records = append(records, r)
	}
	return records
}

// flowed says whether there is a record of traffic to and from an address of the VPC with a source, all with the action.
func flowed(all []flowlog.Record, source, at netip.Addr, port uint16, action flowlog.Action) (to, from bool) {
	for _, r := range all {
		if r.Status != flowlog.OK || r.Action != action || r.Protocol != 6 || r.Packets == 0 || r.Bytes < 40*r.Packets {
			continue
		}
		to = to || r.Dst == netip.AddrPortFrom(at, port) && r.Src.Addr() == source
		from = from || r.Src == netip.AddrPortFrom(at, port) && r.Dst.Addr() == source
	}
	return to, from
}

// TestFlowLogs: what passed at endpoints and what was refused is in flow logs, also of a server that was killed.
func TestFlowLogs(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, "--flow-log-interval", "200ms")
	office, guests := netip.MustParseAddr("192.168.3.9"), netip.MustParseAddr("172.16.0.5")
	private := netip.MustParseAddr(s.info.EndpointAddresses[0].Private)
	at := net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "443")
	if b, err := talk(t, "127.0.3.9", at); err != nil || b == "" {
		t.Fatalf("office: %q, %v", b, err)
	}
	_, _ = talk(t, "127.1.0.5", at) // it is refused
	var all []flowlog.Record
	until(t, "records", func() bool {
		all = s.flowLogs()
		to, from := flowed(all, office, private, 443, flowlog.Accept)
		rejected, _ := flowed(all, guests, private, 443, flowlog.Reject)
		return to && from && rejected
	})
	if to, from := flowed(all, guests, private, 443, flowlog.Accept); to || from {
		t.Errorf("traffic of the guests was accepted: %+v", all)
	}
	interfaces := map[string]bool{}
	quiet := 0
	eni := ""
	for _, r := range all {
		interfaces[r.Interface] = true
		if r.Status == flowlog.NoData {
			quiet++
		}
		if r.Dst.Addr() == private {
			eni = r.Interface
		}
	}
	if len(interfaces) != 2 || quiet == 0 || !strings.HasPrefix(eni, "eni-") {
		t.Errorf("records of interfaces %v, %d without traffic, %s has %s", interfaces, quiet, eni, private)
	}

	for _, r := range s.flowLogs("--action", "reject") {
		if r.Action != flowlog.Reject {
			t.Errorf("asked for what was rejected: %+v", r)
		}
	}
	for _, r := range s.flowLogs("--eni", eni, "--since", "1h") {
		if r.Interface != eni {
			t.Errorf("asked for %s: %+v", eni, r)
		}
	}
	if out := s.mustPenstock("flow-logs", "--action", "REJECT"); !strings.Contains(out, "SOURCE") || !strings.Contains(out, "172.16.0.5:") || strings.Contains(out, "NODATA") {
		t.Errorf("for people: %s", out)
	}
	for _, bad := range [][]string{{"--action", "DROP"}, {"--eni", "vpce-1"}, {"--since", "-1m"}, {"x"}} {
		if out, err := s.penstock(append([]string{"flow-logs"}, bad...)...); err == nil {
			t.Errorf("penstock flow-logs %v: no error, %s", bad, out)
		}
	}

	// A session's channels, each way, after a look at what is written as it is written.
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	var following lockedBuffer
	follower := exec.CommandContext(t.Context(), bin, "flow-logs", "--data-dir", dir, "--follow", "--action", "ACCEPT", "--since", "1s")
	follower.Stdout = &following
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	v := s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "127.0.4.4")
	v.mustLive(t)
	until(t, "the session's records", func() bool { return strings.Count(following.String(), " 192.168.4.4:") >= 4 })
	if err := follower.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := follower.Wait(); err != nil {
		t.Errorf("penstock flow-logs --follow: %v", err)
	}

	// kill -9 costs an interval at most; the next server goes on in the same folder.
	before := s.flowLogs()
	s.kill()
	if after := s.flowLogs(); len(after) < len(before) {
		t.Errorf("%d records before SIGKILL, %d after", len(before), len(after))
	}
	s = start(t, dir, "--flow-log-interval", "200ms")
	if b, err := talk(t, "127.0.5.5", net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "443")); err != nil || b == "" {
		t.Fatalf("office after a restart: %q, %v", b, err)
	}
	s.stop() // at once: the end of a server writes what it has
	all = s.flowLogs()
	if to, from := flowed(all, netip.MustParseAddr("192.168.5.5"), private, 443, flowlog.Accept); !to || !from || len(all) <= len(before) {
		t.Errorf("%d records before, %d after a restart; to %t, from %t", len(before), len(all), to, from)
	}
	files, err := filepath.Glob(filepath.Join(dir, "flow-logs", "flows-*"))
	if err != nil || len(files) != 1 {
		t.Errorf("files: %v, %v", files, err)
	}
}

// TestFlowLogsOff: nothing is written and nothing is missing. Flags that cannot be are refused.
func TestFlowLogsOff(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, "--no-demo", "--flow-logs=false")
	s.stop()
	if _, err := os.Stat(filepath.Join(dir, "flow-logs")); !os.IsNotExist(err) {
		t.Errorf("flow logs that were turned off: %v", err)
	}
	for _, bad := range [][]string{
		{"--flow-log-interval", "5m"},
		{"--flow-log-interval", "1ms"},
		{"--flow-log-file-mib", "0"},
		{"--flow-log-file-mib", "200"},
		{"--flow-log-total-mib", "4"},
		{"--flow-log-age", "10ms"},
	} {
		s := launch(t, t.TempDir(), bad...)
		select {
		case <-s.done:
		case <-time.After(patience):
			t.Fatalf("%v: the server does not end", bad)
		}
		if s.err == nil || !strings.Contains(s.stderr.String(), "--flow-log-") {
			t.Errorf("%v: %v, %s", bad, s.err, s.stderr)
		}
	}
}

// TestFullDiskOfFlowLogs: streaming goes on, it is said once, and what is missing is marked when there is room again.
func TestFullDiskOfFlowLogs(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	logs := filepath.Join(dir, "flow-logs")
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("penstock-test", logs, "tmpfs", 0, "size=4k"); err != nil {
		t.Skip("a file system cannot be mounted, for lack of privilege: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(logs, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := start(t, dir, "--flow-log-interval", "100ms")
	v := s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "")
	const said = "flow logs could not be written"
	until(t, "the disk to be full", func() bool { return strings.Contains(s.stderr.String(), said) })
	v.mustLive(t)
	time.Sleep(10 * 100 * time.Millisecond) // some more intervals
	v.mustLive(t)
	if n := strings.Count(s.stderr.String(), said); n != 1 {
		t.Errorf("said %d times: %s", n, tail(s.stderr.String(), 2000))
	}
	if err := syscall.Mount("penstock-test", logs, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	until(t, "records that say what is missing", func() bool {
		n := 0
		for _, r := range s.flowLogs() {
			if r.Status == flowlog.SkipData {
				n++
			}
		}
		return n >= 2
	})
	if !strings.Contains(s.stderr.String(), "flow logs are written again") {
		t.Error("that there is room again was not said")
	}
	v.mustLive(t)
	s.stop()
}
