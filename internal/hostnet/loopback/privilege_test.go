package loopback

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"penstock.dev/penstock/internal/vpc/vpctest"
)

const unprivilegedEnv = "PENSTOCK_TEST_UNPRIVILEGED_DIR"

// TestWithoutPrivilege runs the driver as an ordinary user, who may not bind 443.
func TestWithoutPrivilege(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil || strings.TrimSpace(string(text)) != "1024" {
		t.Skipf("ordinary users may bind 443 here: %s%v", text, err)
	}
	// The user needs a copy of this program and a folder, both where everybody may look.
	dir, err := os.MkdirTemp("", "penstock-unprivileged-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program := filepath.Join(dir, "test")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestUnprivilegedHalf$", "-test.count=1")
	cmd.Env = append(os.Environ(), unprivilegedEnv+"="+dir)
	cmd.Dir = dir
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "control port 8443") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestUnprivilegedHalf is the part of TestWithoutPrivilege that runs as an ordinary user.
func TestUnprivilegedHalf(t *testing.T) {
	dir := os.Getenv(unprivilegedEnv)
	if dir == "" {
		t.Skip("a part of TestWithoutPrivilege")
	}
	t.Setenv("TMPDIR", dir)
	d, _ := start(t, Config{})
	n := vpctest.NewNetwork(77)
	apply(t, d, n)
	checkAll(t, d, n)
	c, err := dialFrom(t.Context(), d, netip.MustParseAddrPort("192.168.0.1:0"), n.VPC.ID, n.At(0, 443))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served, err := d.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if served.Port != 443 || !strings.Contains(d.Hint("bin/penstock"), "setcap") {
		t.Errorf("port %d, hint %q", served.Port, d.Hint("bin/penstock"))
	}
	fmt.Printf("control port %d\n", d.ControlPort())
}
