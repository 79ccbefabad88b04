package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/vishvananda/netlink"
)

// serving is a configuration of `penstock serve` in a file, for a data directory that it makes.
type serving struct {
	t         *testing.T
	dir, file string
}

func newServing(t *testing.T, driver string) serving {
	t.Helper()
	base := t.TempDir()
	s := serving{t: t, dir: filepath.Join(base, "data"), file: filepath.Join(base, "penstock.json")}
	s.write(map[string]any{
		"dataDir": "data", "accountId": "123456789012", "api": map[string]any{"address": freePort(t)}, "public": map[string]any{"address": freePort(t)},
		"network": map[string]any{"driver": driver}, "log": map[string]any{"format": "json"}, "limits": map[string]any{"vpcs": 2},
	})
	return s
}

func (s serving) write(config any) {
	s.t.Helper()
	b, err := json.Marshal(config)
	if err == nil {
		err = os.WriteFile(s.file, b, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// launch starts the server under another command, if any, and does not wait.
func (s serving) launch(env []string, under ...string) *server {
	s.t.Helper()
	bin, err := binary()
	if err != nil {
		s.t.Fatal(err)
	}
	return launchCommand(s.t, nil, s.dir, append(under, bin, "serve", "--config", s.file), env)
}

// TestServe: first start, an AWS client's stack, restart with the same key, replacement of the key, one server a data directory, and an
// end that leaves nothing.
func TestServe(t *testing.T) {
	needE2E(t)
	t.Parallel()
	serveLife(t, newServing(t, "loopback"))
}

// TestServeKernelNetwork is TestServe with packets in the kernel, and with no more capabilities than the unit in deploy/ gives.
func TestServeKernelNetwork(t *testing.T) {
	inOwnNamespace(t, func(t *testing.T) {
		vpc := serveLife(t, newServing(t, "kernel"), "setpriv", "--bounding-set", unitCapabilities(t), "--no-new-privs")
		if names, err := filepath.Glob("/run/netns/penstock-*-" + strings.TrimPrefix(vpc, "vpc-")); err != nil || len(names) > 0 {
			t.Errorf("namespaces %v were left (%v)", names, err)
		}
		links, err := netlink.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Name, "psk") {
				t.Errorf("link %s was left", l.Attrs().Name)
			}
		}
	})
}

// unitCapabilities are those of the unit, as setpriv takes them.
func unitCapabilities(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "penstock.service"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.+)$`).FindSubmatch(b)
	if m == nil {
		t.Fatal("the unit bounds no capabilities")
	}
	set := "-all"
	for name := range strings.FieldsSeq(strings.ToLower(string(m[1]))) {
		set += ",+" + strings.TrimPrefix(name, "cap_")
	}
	return set
}

// serveLife returns the VPC that had an endpoint.
func serveLife(t *testing.T, config serving, under ...string) (vpc string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "notify")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	s := config.launch([]string{"NOTIFY_SOCKET=" + manager.LocalAddr().String()}, under...)
	s.awaitReady()
	_ = manager.SetReadDeadline(time.Now().Add(patience))
	word := make([]byte, 64)
	if n, err := manager.Read(word); err != nil || string(word[:n]) != "READY=1" {
		t.Errorf("the service manager heard %q (%v)", word[:n], err)
	}
	if s.info.AccountID != "123456789012" || s.info.StackName != "" || s.info.StreamingURL != "" {
		t.Errorf("dev.json: %+v", s.info)
	}
	for line := range strings.Lines(s.stderr.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of the log is no JSON: %s", line)
		}
	}
	credentials := filepath.Join(config.dir, "aws", "credentials")
	if info, err := os.Stat(credentials); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", credentials, info, err)
	}
	if info, err := os.Stat(config.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", config.dir, info, err)
	}
	first := mustRead(t, credentials)

	// An account with a default VPC, the configured quota, and a fleet whose instances run.
	var vpcs struct{ Vpcs []struct{ IsDefault bool } }
	s.aws(&vpcs, "ec2", "describe-vpcs")
	if len(vpcs.Vpcs) != 1 || !vpcs.Vpcs[0].IsDefault {
		t.Errorf("VPCs: %+v", vpcs)
	}
	s.aws(nil, "ec2", "create-vpc", "--cidr-block", "10.9.0.0/16")
	s.awsFails("VpcLimitExceeded", "ec2", "create-vpc", "--cidr-block", "10.10.0.0/16")
	vpc, endpoint := s.newEndpoint()
	s.aws(nil, "appstream", "create-stack", "--name", "office", "--access-endpoints", "EndpointType=STREAMING,VpceId="+endpoint)
	var images struct{ Images []struct{ Name string } }
	s.aws(&images, "appstream", "describe-images")
	if len(images.Images) == 0 {
		t.Fatal("there are no images")
	}
	s.aws(nil, "appstream", "create-fleet", "--name", "office", "--instance-type", "stream.standard.small", "--image-name", images.Images[0].Name,
		"--compute-capacity", "DesiredInstances=2")
	s.aws(nil, "appstream", "associate-fleet", "--fleet-name", "office", "--stack-name", "office")
	s.aws(nil, "appstream", "start-fleet", "--name", "office")
	until(t, "instances", func() bool {
		var fleets struct {
			Fleets []struct {
				State                 string
				ComputeCapacityStatus struct{ Available int }
			}
		}
		s.aws(&fleets, "appstream", "describe-fleets", "--names", "office")
		return len(fleets.Fleets) == 1 && fleets.Fleets[0].State == "RUNNING" && fleets.Fleets[0].ComputeCapacityStatus.Available == 2
	})
	s.streams("ann")

	other := config.launch(nil)
	<-other.done
	if other.err == nil || !strings.Contains(other.stderr.String(), "data directory "+config.dir) {
		t.Errorf("a second server: %v, %s", other.err, other.stderr.String())
	}
	s.stop()
	config.nothingLeft()

	s = config.launch(nil, under...)
	s.awaitReady()
	if again := mustRead(t, credentials); !bytes.Equal(first, again) {
		t.Error("the restart made another key")
	}
	var stacks struct{ Stacks []struct{ Name string } }
	s.aws(&stacks, "appstream", "describe-stacks")
	if len(stacks.Stacks) != 1 || stacks.Stacks[0].Name != "office" {
		t.Errorf("stacks: %+v", stacks)
	}
	before := s.asRoot()
	if _, err := before.Credentials.Retrieve(ctx); err != nil {
		t.Fatal(err)
	}
	s.mustPenstock("root-key", "rotate")
	_, err = sts.NewFromConfig(before).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	wantCode(t, err, "InvalidClientTokenId", "")
	if _, err := sts.NewFromConfig(s.asRoot()).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}); err != nil {
		t.Errorf("the new key: %v", err)
	}
	s.mustPenstock("audit", "verify")

	// What a crash leaves, the next start removes, with a session in it.
	until(t, "the endpoint", func() bool { return s.endpointState(endpoint) == "available" })
	s.streams("bob")
	s.kill()
	s = config.launch(nil, under...)
	s.awaitReady()
	until(t, "the endpoint", func() bool { return s.endpointState(endpoint) == "available" })
	s.streams("eve")
	s.stop()
	config.nothingLeft()
	return vpc
}

// newEndpoint makes an available endpoint in the default VPC, whose group admits everybody.
func (s *server) newEndpoint() (vpc, id string) {
	s.t.Helper()
	var subnets struct {
		Subnets []struct{ SubnetID, VpcID string }
	}
	s.aws(&subnets, "ec2", "describe-subnets", "--filters", "Name=default-for-az,Values=true")
	if len(subnets.Subnets) == 0 {
		s.t.Fatal("the default VPC has no subnets")
	}
	vpc = subnets.Subnets[0].VpcID
	var group struct{ GroupID string }
	s.aws(&group, "ec2", "create-security-group", "--group-name", "viewers", "--description", "viewers", "--vpc-id", vpc)
	s.aws(nil, "ec2", "authorize-security-group-ingress", "--group-id", group.GroupID, "--ip-permissions",
		"IpProtocol=tcp,FromPort=443,ToPort=443,IpRanges=[{CidrIp=0.0.0.0/0}]", "IpProtocol=tcp,FromPort=1400,ToPort=1499,IpRanges=[{CidrIp=0.0.0.0/0}]")
	var made struct {
		VpcEndpoint struct{ VpcEndpointID string }
	}
	s.aws(&made, "ec2", "create-vpc-endpoint", "--vpc-endpoint-type", "Interface", "--vpc-id", vpc, "--service-name", "com.amazonaws.us-east-1.appstream.streaming",
		"--subnet-ids", subnets.Subnets[0].SubnetID, "--security-group-ids", group.GroupID)
	id = made.VpcEndpoint.VpcEndpointID
	until(s.t, "the endpoint", func() bool { return s.endpointState(id) == "available" })
	return vpc, id
}

func (s *server) endpointState(id string) string {
	s.t.Helper()
	var out struct{ VpcEndpoints []struct{ State string } }
	s.aws(&out, "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", id)
	if len(out.VpcEndpoints) != 1 {
		s.t.Fatalf("endpoints: %+v", out)
	}
	return out.VpcEndpoints[0].State
}

// streams wants a session of the stack "office" whose viewer hears from its agent, through the endpoint.
func (s *server) streams(user string) {
	s.t.Helper()
	var u struct{ StreamingURL string }
	until(s.t, "an instance for "+user, func() bool {
		out, err := s.tryAWS("appstream", "create-streaming-url", "--stack-name", "office", "--fleet-name", "office", "--user-id", user)
		return err == nil && json.Unmarshal(out, &u) == nil
	})
	s.connect(s.visit(u.StreamingURL).mustLaunch("xterm").ViewerURL, "").mustLive(s.t)
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nothingLeft wants no process that has to do with the data directory.
func (s serving) nothingLeft() {
	s.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range files {
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "environ"))
		cmd, _ := os.ReadFile(f)
		if bytes.Contains(cmd, []byte(s.dir)) || bytes.Contains(env, []byte(s.dir)) || bytes.Contains(cmd, []byte(s.file)) {
			s.t.Errorf("left: %q", cmd)
		}
	}
}

// TestServeTLS: with TLS in the configuration API, portal and endpoints speak nothing else, with certificates of the data directory's CA and the
// version that the file asks for.
func TestServeTLS(t *testing.T) {
	needE2E(t)
	config := newServing(t, "loopback")
	config.write(map[string]any{
		"dataDir": "data", "api": map[string]any{"address": freePort(t)}, "public": map[string]any{"address": freePort(t)},
		"network": map[string]any{"driver": "loopback"}, "tls": map[string]any{"mode": "on", "minVersion": "1.3"},
	})
	t.Setenv("AWS_CA_BUNDLE", filepath.Join(config.dir, "ca", "root.pem"))
	s := config.launch(nil)
	s.awaitReady()
	roots := s.roots()
	if roots == nil || !strings.HasPrefix(s.info.APIURL, "https://") || !strings.HasPrefix(s.info.PublicURL, "https://") {
		t.Fatalf("dev.json: %+v", s.info)
	}
	get := func(url string, c *tls.Config) (int, error) {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: c}}
		resp, err := client.Get(url)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode, nil
	}
	_, _ = s.newEndpoint() // by the AWS CLI, over TLS
	for _, url := range []string{s.info.APIURL, s.info.PublicURL} {
		if status, err := get(url+"/", &tls.Config{RootCAs: roots}); err != nil || status != 200 {
			t.Errorf("%s: %d, %v", url, status, err)
		}
		if _, err := get(url+"/", &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12}); err == nil {
			t.Errorf("%s: TLS 1.2 was spoken", url)
		}
		if _, err := get(url+"/", &tls.Config{RootCAs: x509.NewCertPool()}); err == nil {
			t.Errorf("%s: a client that trusts nobody was served", url)
		}
		if status, err := get(strings.Replace(url, "https://", "http://", 1)+"/", nil); err == nil && status == 200 {
			t.Errorf("%s was served in the clear", url)
		}
	}
	resp, err := (&http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}).Get(s.info.PublicURL + "/api/portal/v1/me")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusUnauthorized || resp.TLS == nil || resp.TLS.Version != tls.VersionTLS13 {
		t.Errorf("the portal: %s", resp.Status)
	}
	s.stop()
	config.nothingLeft()
}

// TestServeConfiguration: --check-config prints the effective configuration and starts nothing; a bad one is refused by its key.
func TestServeConfiguration(t *testing.T) {
	needE2E(t)
	t.Parallel()
	config := newServing(t, "loopback")
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), bin, "serve", "--config", config.file, "--check-config").Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(config.dir); !os.IsNotExist(err) {
		t.Errorf("--check-config made the data directory (%v)", err)
	}
	if err := os.WriteFile(config.file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := exec.CommandContext(t.Context(), bin, "serve", "--check-config", "--config", config.file).Output()
	if err != nil || !bytes.Equal(out, again) || !bytes.Contains(out, []byte(`"vpcs": 2,`)) || !bytes.Contains(out, []byte(config.dir)) {
		t.Errorf("%v: printed\n%s\nand then\n%s", err, out, again)
	}
	// A port that is taken is named by its key, too.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, tt := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"tls": map[string]any{"acme": map[string]any{"directory": "https://acme.example"}}}, "tls.acme.directory: needs tls.acme.names"},
		{map[string]any{"nett": 1}, "nett: unknown key"},
		{map[string]any{
			"dataDir": "data", "network": map[string]any{"driver": "loopback"}, "api": map[string]any{"address": l.Addr().String()},
		}, "choose another with api.address"},
	} {
		config.write(tt.config)
		s := config.launch(nil)
		<-s.done
		if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.ExitStatus() != 1 || !strings.Contains(s.stderr.String(), tt.want) {
			t.Errorf("%v: %v, %s, want %s", tt.config, s.err, s.stderr.String(), tt.want)
		}
	}
}
