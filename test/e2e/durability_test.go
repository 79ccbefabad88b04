package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// TestKillLosesNoAcknowledgedCall kills the server under load, several times, and looks for everything that was acknowledged.
func TestKillLosesNoAcknowledgedCall(t *testing.T) {
	needE2E(t)
	t.Parallel()
	const rounds, writers = 3, 6
	dir := t.TempDir()
	var stacks, groups []string
	for round := range rounds {
		s := start(t, dir, "--no-demo")
		as, e := s.sdk()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		var mu sync.Mutex
		var wg sync.WaitGroup
		acknowledged := 0
		enough := make(chan struct{})
		for w := range writers {
			wg.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					name := fmt.Sprintf("r%d-w%d-%d", round, w, i)
					var err error
					if w%2 == 0 {
						_, err = as.CreateStack(ctx, &appstream.CreateStackInput{Name: &name}, func(o *appstream.Options) { o.RetryMaxAttempts = 1 })
					} else {
						_, err = e.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: &name, Description: &name}, func(o *ec2.Options) { o.RetryMaxAttempts = 1 })
					}
					if err != nil {
						return // the server is gone
					}
					mu.Lock()
					if w%2 == 0 {
						stacks = append(stacks, name)
					} else {
						groups = append(groups, name)
					}
					if acknowledged++; acknowledged == 150 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-ctx.Done():
			t.Fatalf("round %d: only %d calls were acknowledged", round, acknowledged)
		}
		s.kill()
		cancel()
		wg.Wait()
		t.Logf("round %d: killed after %d acknowledged calls", round, acknowledged)
	}
	s := start(t, dir, "--no-demo")
	as, e := s.sdk()
	have := map[string]bool{}
	ds, err := as.DescribeStacks(t.Context(), &appstream.DescribeStacksInput{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range ds.Stacks {
		have[*x.Name] = true
	}
	pages := ec2.NewDescribeSecurityGroupsPaginator(e, &ec2.DescribeSecurityGroupsInput{MaxResults: aws.Int32(100)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range p.SecurityGroups {
			have[*g.GroupName] = true
		}
	}
	for _, name := range append(stacks, groups...) {
		if !have[name] {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
}

// TestRandomBytesOnEveryListener throws junk at the API, the portal and every port of both interfaces; everything still serves.
func TestRandomBytesOnEveryListener(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	addrs := []string{strings.TrimPrefix(s.info.APIURL, "http://"), strings.TrimPrefix(s.info.PublicURL, "http://")}
	for _, a := range s.info.EndpointAddresses {
		addrs = append(addrs, net.JoinHostPort(a.Dial, "443"))
		for port := 1400; port <= 1499; port++ {
			addrs = append(addrs, net.JoinHostPort(a.Dial, fmt.Sprint(port)))
		}
	}
	for i, addr := range addrs {
		for _, junk := range [][]byte{random(1 + i*37%5000), []byte("GET /v1/channel/display HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: \x00\xff\r\n\r\n")} {
			c, err := net.DialTimeout("tcp", addr, 5*time.Second)
			if err != nil {
				t.Fatalf("%s does not accept: %v", addr, err)
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = c.Write(junk)
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
			if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s keeps a connection of junk open", addr)
			}
			_ = c.Close()
		}
	}
	s.aws(nil, "sts", "get-caller-identity")
	v := s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "")
	v.mustLive(t)
}
