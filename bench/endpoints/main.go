// Command endpoints runs `penstock dev --net kernel` in a network namespace of its own and measures, through the API and with real
// connections, how long an endpoint takes to become available and a rule to be in force. It prints one line of JSON. It needs root.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/vishvananda/netlink"
)

const (
	insideEnv = "PENSTOCK_BENCH_NAMESPACE" // set for the run inside
	patience  = 30 * time.Second
)

func main() {
	binary := flag.String("binary", "bin/penstock", "`program` to measure")
	rounds := flag.Int("rounds", 20, "endpoints made, and rules changed at each number of rules")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if os.Getenv(insideEnv) == "" {
		err = outside(ctx)
	} else {
		err = inside(ctx, *binary, *rounds)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "endpoints:", err)
		os.Exit(1)
	}
}

// outside runs this program again in a network namespace of its own, so that nothing on the machine changes.
func outside(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("network namespaces need root")
	}
	cmd := exec.CommandContext(ctx, os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	return cmd.Run()
}

// region is a running `penstock dev`.
type region struct {
	APIURL            string `json:"apiUrl"`
	VPCID             string `json:"vpcId"`
	Region            string `json:"region"`
	VPCEndpointID     string `json:"vpcEndpointId"`
	EndpointAddresses []struct {
		SubnetID string `json:"subnetId"`
		Dial     string `json:"dial"`
	} `json:"endpointAddresses"`
	UserNetworks []struct {
		CIDR string `json:"cidr"`
	} `json:"userNetworks"`

	credentials aws.Credentials
	client      http.Client
	service     string // of the streaming endpoint
	group       string // that the demo's endpoint has
}

// spread is a distribution in milliseconds.
type spread struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P95   float64 `json:"p95"`
	Max   float64 `json:"max"`
}

func spreadOf(times []time.Duration) spread {
	slices.Sort(times)
	at := func(share float64) float64 {
		return float64(times[int(math.Round(share*float64(len(times)-1)))].Microseconds()) / 1000
	}
	return spread{len(times), at(0.5), at(0.95), at(1)}
}

type ruleTimes struct {
	Rules     int    `json:"rules"` // in the network's table
	Authorize spread `json:"authorize"`
	Revoke    spread `json:"revoke"`
}

func inside(ctx context.Context, binary string, rounds int) (err error) {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback of the namespace: %w", err)
	}
	dir, err := os.MkdirTemp("", "penstock-bench-endpoints-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r, stop, err := start(ctx, binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	result := struct {
		Create spread      `json:"create"`
		Rules  []ruleTimes `json:"rules"`
	}{}
	if result.Create, err = r.endpoints(ctx, rounds); err != nil {
		return fmt.Errorf("endpoints: %w", err)
	}
	for _, n := range []int{1, 100, 1000} {
		t, err := r.rules(ctx, n, rounds)
		if err != nil {
			return fmt.Errorf("%d rules: %w", n, err)
		}
		result.Rules = append(result.Rules, t)
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

func start(ctx context.Context, binary, dir string) (*region, func() error, error) {
	cmd := exec.CommandContext(ctx, binary, "dev", "--data-dir", dir, "--net", "kernel", "--api-addr", "127.0.0.1:4580", "--public-addr", "127.0.0.1:8080")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("penstock: %w\n%s", err, log.String())
		}
		return nil
	}
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready") {
				ready <- true
				break
			}
		}
		close(ready)
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case ok := <-ready:
		if !ok {
			return nil, nil, errors.Join(errors.New("penstock did not become ready"), stop())
		}
	case <-time.After(patience):
		return nil, nil, errors.Join(errors.New("penstock did not become ready in time"), stop())
	}
	r, err := open(ctx, dir)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return r, stop, nil
}

func open(ctx context.Context, dir string) (*region, error) {
	b, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		return nil, err
	}
	r := &region{client: http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // its own authority, in its own namespace
	}}}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, err
	}
	if b, err = os.ReadFile(filepath.Join(dir, "aws/credentials")); err != nil {
		return nil, err
	}
	value := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `\s*=\s*(\S+)`).FindSubmatch(b)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	r.credentials = aws.Credentials{AccessKeyID: value("aws_access_key_id"), SecretAccessKey: value("aws_secret_access_key")}
	var e endpointSet
	if err := r.call(ctx, &e, "DescribeVpcEndpoints", "VpcEndpointId.1", r.VPCEndpointID); err != nil {
		return nil, err
	}
	if len(e.Endpoints) != 1 || len(e.Endpoints[0].Groups) == 0 || len(r.UserNetworks) < 2 || len(r.EndpointAddresses) < 2 {
		return nil, fmt.Errorf("the demo is not as expected: %+v", e)
	}
	r.service, r.group = e.Endpoints[0].Service, e.Endpoints[0].Groups[0]
	return r, nil
}

type endpointSet struct {
	Endpoints []struct {
		ID      string   `xml:"vpcEndpointId"`
		State   string   `xml:"state"`
		Service string   `xml:"serviceName"`
		Groups  []string `xml:"groupSet>item>groupId"`
	} `xml:"vpcEndpointSet>item"`
}

// call sends one signed request of EC2's protocol; members are names and values in turns.
func (r *region) call(ctx context.Context, answer any, action string, members ...string) error {
	form := url.Values{"Action": {action}, "Version": {"2016-11-15"}}
	for i := 0; i < len(members); i += 2 {
		form.Set(members[i], members[i+1])
	}
	body := []byte(form.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.APIURL+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, r.credentials, req, hex.EncodeToString(sum[:]), "ec2", r.Region, time.Now()); err != nil {
		return err
	}
	res, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %.500s", action, res.StatusCode, b)
	}
	if answer == nil {
		return nil
	}
	return xml.Unmarshal(b, answer)
}

// create makes an endpoint and returns how long it took until it was available.
func (r *region) create(ctx context.Context, groups []string, subnets int) (string, time.Duration, error) {
	members := []string{"VpcId", r.VPCID, "ServiceName", r.service, "VpcEndpointType", "Interface", "PrivateDnsEnabled", "false"}
	for i, a := range r.EndpointAddresses[:subnets] {
		members = append(members, fmt.Sprintf("SubnetId.%d", i+1), a.SubnetID)
	}
	for i, g := range groups {
		members = append(members, fmt.Sprintf("SecurityGroupId.%d", i+1), g)
	}
	var made struct {
		ID string `xml:"vpcEndpoint>vpcEndpointId"`
	}
	began := time.Now()
	if err := r.call(ctx, &made, "CreateVpcEndpoint", members...); err != nil {
		return "", 0, err
	}
	for time.Since(began) < patience {
		var e endpointSet
		if err := r.call(ctx, &e, "DescribeVpcEndpoints", "VpcEndpointId.1", made.ID); err != nil {
			return "", 0, err
		}
		if len(e.Endpoints) == 1 && e.Endpoints[0].State == "available" {
			return made.ID, time.Since(began), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return "", 0, fmt.Errorf("%s did not become available", made.ID)
}

// endpoints makes endpoints in two zones, one after the other.
func (r *region) endpoints(ctx context.Context, rounds int) (spread, error) {
	var times []time.Duration
	for range rounds {
		id, took, err := r.create(ctx, []string{r.group}, 2)
		if err != nil {
			return spread{}, err
		}
		times = append(times, took)
		if err := r.call(ctx, nil, "DeleteVpcEndpoints", "VpcEndpointId.1", id); err != nil {
			return spread{}, err
		}
		for gone := time.Now(); ; time.Sleep(2 * time.Millisecond) {
			var e endpointSet
			if err := r.call(ctx, &e, "DescribeVpcEndpoints", "VpcEndpointId.1", id); err != nil || len(e.Endpoints) == 0 {
				break // it is not found any more
			}
			if time.Since(gone) > patience {
				return spread{}, fmt.Errorf("%s was not deleted", id)
			}
		}
	}
	return spreadOf(times), nil
}

// AWS's quotas: rules of a group, groups of an interface.
const (
	perGroup     = 60
	perInterface = 5
)

// rules brings the network to n rules that do not match, in groups that endpoints have, and times changes of one that does.
func (r *region) rules(ctx context.Context, n, rounds int) (ruleTimes, error) {
	t := ruleTimes{Rules: n}
	var groups []string
	for at := 0; at < n; at += perGroup {
		id, err := r.fill(ctx, fmt.Sprintf("filled-%d-%d", n, at), at, min(perGroup, n-at))
		if err != nil {
			return t, err
		}
		groups = append(groups, id)
	}
	var made []string
	for some := range slices.Chunk(groups, perInterface) {
		id, _, err := r.create(ctx, some, 1)
		if err != nil {
			return t, err
		}
		made = append(made, id)
	}
	guests, err := netip.ParsePrefix(r.UserNetworks[1].CIDR)
	if err != nil {
		return t, err
	}
	door := prober{from: guests.Addr().Next().String(), to: net.JoinHostPort(r.EndpointAddresses[0].Dial, "443")}
	rule := []string{
		"GroupId", r.group, "IpPermissions.1.IpProtocol", "tcp", "IpPermissions.1.FromPort", "443", "IpPermissions.1.ToPort", "443",
		"IpPermissions.1.IpRanges.1.CidrIp", guests.String(),
	}
	var opened, shut []time.Duration
	for range rounds {
		for _, change := range []struct {
			action string
			open   bool
			times  *[]time.Duration
		}{{"AuthorizeSecurityGroupIngress", true, &opened}, {"RevokeSecurityGroupIngress", false, &shut}} {
			took, err := door.until(change.open, func() error { return r.call(ctx, nil, change.action, rule...) })
			if err != nil {
				return t, err
			}
			*change.times = append(*change.times, took)
		}
	}
	t.Authorize, t.Revoke = spreadOf(opened), spreadOf(shut)
	for _, id := range made {
		if err := r.call(ctx, nil, "DeleteVpcEndpoints", "VpcEndpointId.1", id); err != nil {
			return t, err
		}
	}
	return t, nil
}

func (r *region) fill(ctx context.Context, name string, from, n int) (string, error) {
	var made struct {
		ID string `xml:"groupId"`
	}
	if err := r.call(ctx, &made, "CreateSecurityGroup", "GroupName", name, "GroupDescription", "rules that match nobody", "VpcId", r.VPCID); err != nil {
		return "", err
	}
	members := []string{"GroupId", made.ID}
	for i := range n {
		p := fmt.Sprintf("IpPermissions.%d.", i+1)
		at := from + i
		members = append(members, p+"IpProtocol", "tcp", p+"FromPort", "443", p+"ToPort", "443",
			p+"IpRanges.1.CidrIp", fmt.Sprintf("11.0.%d.%d/32", at>>8, at&255))
	}
	return made.ID, r.call(ctx, nil, "AuthorizeSecurityGroupIngress", members...)
}

// prober connects again and again.
type prober struct{ from, to string }

const (
	probeEvery = time.Millisecond
	probeWait  = 100 * time.Millisecond // within a machine, no answer by then is none
)

// until makes a change and returns the time from its beginning to the first connection that came about, or to the beginning of the
// first whose packets were dropped.
func (p prober) until(open bool, change func() error) (time.Duration, error) {
	var mu sync.Mutex
	var first time.Duration
	var all sync.WaitGroup
	defer all.Wait()
	done := make(chan struct{})
	var once sync.Once
	began := time.Now()
	attempt := func() {
		at := time.Since(began)
		d := net.Dialer{Timeout: probeWait, LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.from)}}
		c, err := d.Dial("tcp", p.to)
		if err == nil {
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
			_ = c.Close()
			at2 := time.Since(began)
			if !open {
				return
			}
			at = at2
		} else if e, ok := errors.AsType[net.Error](err); open || !ok || !e.Timeout() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if first == 0 || at < first {
			first = at
		}
		once.Do(func() { close(done) })
	}
	failed := make(chan error, 1)
	go func() { failed <- change() }()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			all.Go(attempt)
		case err := <-failed:
			if err != nil {
				return 0, err
			}
			failed = nil
		case <-done:
			all.Wait() // an earlier one may answer later
			if failed != nil {
				if err := <-failed; err != nil {
					return 0, err
				}
			}
			return first, nil
		}
		if time.Since(began) > patience {
			return 0, errors.New("the change did not come into force")
		}
	}
}
