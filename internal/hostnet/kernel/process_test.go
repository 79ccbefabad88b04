package kernel

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// workerEnv names what a process of the tests does instead of running them; its configuration is in workerConfigEnv.
const (
	workerEnv       = "PENSTOCK_TEST_KERNEL_WORKER"
	workerConfigEnv = "PENSTOCK_TEST_KERNEL_WORKER_CONFIG"
)

// workers are the processes of the tests.
func workers() map[string]func([]byte) error {
	return map[string]func([]byte) error{"apply": applyForever, "crowd": crowd, "starved": starved}
}

// work runs a process of the tests; false when this is none.
func work() (ran bool, code int) {
	f := workers()[os.Getenv(workerEnv)]
	if f == nil {
		return false, 0
	}
	if err := f([]byte(os.Getenv(workerConfigEnv))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return true, 1
	}
	return true, 0
}

// worker starts a process of the tests and returns what it says.
func worker(t *testing.T, name string, config any) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), workerEnv+"="+name, workerConfigEnv+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(out)
}

// said waits for a line.
func said(t *testing.T, out *bufio.Reader, want string) {
	t.Helper()
	line, err := out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		t.Fatalf("the process said %q, %v, want %q", line, err, want)
	}
}

// place is what a driver of another process is made of.
type place struct {
	DataDir     string
	Attachments []Attachment
}

func driverOf(config []byte, log *slog.Logger) (*Driver, error) {
	var p place
	if err := json.Unmarshal(config, &p); err != nil {
		return nil, err
	}
	return New(Config{DataDir: p.DataDir, Attachments: p.Attachments, Log: log})
}

// applyForever puts one plan after the other in force: VPCs, interfaces and rules come and go.
func applyForever(config []byte) error {
	d, err := driverOf(config, nil)
	if err != nil {
		return err
	}
	for k := 0; ; k++ {
		a, b := vpctest.NewNetwork(77), vpctest.NewNetwork(byte(78+k%2))
		a.Interfaces = a.Interfaces[:1+k%2]
		for i := range k % 50 {
			a.Group.Rules = append(a.Group.Rules, vpc.SecurityGroupRule{
				ID: vpc.SecurityGroupRuleID(fmt.Sprint("sgr-", i)), Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443},
				Peer: vpc.Peer{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 0}), 24)},
			})
		}
		if err := d.Apply(context.Background(), vpctest.PlanOf(a, b)); err != nil {
			return err
		}
		if k == 0 {
			fmt.Println("applied")
		}
	}
}

// TestKilledDuringApply: whenever a process is killed, the next one takes all away that it left, serves, and leaves nothing.
func TestKilledDuringApply(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	cfg := Config{DataDir: t.TempDir(), Attachments: []Attachment{u.attachment()}}
	left := 0
	for k := range 25 {
		cmd, out := worker(t, "apply", place{cfg.DataDir, cfg.Attachments})
		if k%5 > 0 { // otherwise during the very first plan
			said(t, out, "applied")
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		_ = cmd.Process.Kill() // the wait says it
		_ = cmd.Wait()
		names, err := leftNamespaces(namedNamespaces, owner(cfg.DataDir))
		if err != nil {
			t.Fatal(err)
		}
		left += len(names)
		if k%4 < 3 { // the next process finds it, or the one after
			continue
		}
		serveAndLeave(t, u, cfg)
	}
	serveAndLeave(t, u, cfg)
	if left == 0 {
		t.Error("no process left anything: the test does not test")
	}
}

// serveAndLeave starts a driver on what is left, looks whether it serves and is alone, and closes it.
func serveAndLeave(t *testing.T, u *users, cfg Config) {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &lane{t: t, u: u, d: d, n: vpctest.NewNetwork(77)}
	l.apply()
	for _, i := range l.n.Interfaces {
		if err := d.Check(t.Context(), i.ID); err != nil {
			t.Errorf("check: %v", err)
		}
	}
	l.flows(l.connects(anyPort(officeAddr), 0, 443))
	l.silent(anyPort(guestAddr), 1, 443)
	names, err := leftNamespaces(namedNamespaces, d.owner)
	if err != nil || len(names) != 1 {
		t.Errorf("namespaces: %v, %v, want one", names, err)
	}
	u.do(t, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		ours := 0
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "psk") {
				ours++
			}
		}
		if ours != 1 {
			t.Errorf("%d links of ours, want one", ours)
		}
		return err
	})
	if err := d.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	nothingLeft(t, d, u)
}
