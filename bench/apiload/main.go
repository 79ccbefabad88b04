// Command apiload calls the API as fast as it answers, signed as the AWS SDKs sign, and prints calls a second and the
// distribution of answer times as JSON, one line a kind of call.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// call is one kind of request. The index makes writes differ from each other.
type call struct {
	name        string
	service     string
	contentType string
	target      string
	body        func(i int) string
}

func fixed(body string) func(int) string { return func(int) string { return body } }

func calls(stack string) []call {
	const jsonType, formType = "application/x-amz-json-1.1", "application/x-www-form-urlencoded; charset=utf-8"
	const target = "PhotonAdminProxyService."
	return []call{
		{"DescribeStacks", "appstream", jsonType, target + "DescribeStacks", fixed(`{}`)},
		{"DescribeSessions", "appstream", jsonType, target + "DescribeSessions", nil},
		{
			"DescribeVpcEndpoints", "ec2", formType, "",
			fixed("Action=DescribeVpcEndpoints&Version=2016-11-15"),
		},
		{"UpdateStack (durable write)", "appstream", jsonType, target + "UpdateStack", func(i int) string {
			return fmt.Sprintf(`{"Name":%q,"Description":"load %d"}`, stack, i)
		}},
	}
}

// result is what one kind of call gave. Times are milliseconds.
type result struct {
	Call     string  `json:"call"`
	Clients  int     `json:"clients"`
	Calls    int     `json:"calls"`
	Seconds  float64 `json:"seconds"`
	PerSec   float64 `json:"perSecond"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
	Slowest  float64 `json:"max"`
	Failures int     `json:"failures"`
}

func main() {
	url := flag.String("url", "", "URL of the API")
	region := flag.String("region", "us-east-1", "region")
	key := flag.String("key", "", "access key ID; the secret is read from APILOAD_SECRET")
	stack := flag.String("stack", "", "stack that the writes change")
	fleet := flag.String("fleet", "", "fleet of the stack")
	clients := flag.Int("clients", 8, "concurrent clients")
	duration := flag.Duration("duration", 5*time.Second, "time for each kind of call")
	flag.Parse()
	l := load{
		url: *url, region: *region, clients: *clients, duration: *duration,
		credentials: aws.Credentials{AccessKeyID: *key, SecretAccessKey: os.Getenv("APILOAD_SECRET")},
		client: &http.Client{
			Timeout:   30 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: *clients},
		},
	}
	out := json.NewEncoder(os.Stdout)
	for _, c := range calls(*stack) {
		if c.body == nil {
			c.body = fixed(fmt.Sprintf(`{"StackName":%q,"FleetName":%q}`, *stack, *fleet))
		}
		r, err := l.run(context.Background(), c)
		if err != nil {
			fmt.Fprintln(os.Stderr, "apiload:", err)
			os.Exit(1)
		}
		if err := out.Encode(r); err != nil {
			fmt.Fprintln(os.Stderr, "apiload:", err)
			os.Exit(1)
		}
	}
}

type load struct {
	url, region string
	credentials aws.Credentials
	clients     int
	duration    time.Duration
	client      *http.Client
}

// run lets all clients repeat c for the duration. It fails when the first call fails.
func (l *load) run(ctx context.Context, c call) (result, error) {
	if err := l.do(ctx, c, 0); err != nil {
		return result{}, fmt.Errorf("%s: %w", c.name, err)
	}
	times := make([][]time.Duration, l.clients)
	failures := make([]int, l.clients)
	var all sync.WaitGroup
	start := time.Now()
	for n := range l.clients {
		all.Go(func() {
			for i := 1; time.Since(start) < l.duration; i++ {
				began := time.Now()
				if err := l.do(ctx, c, i*l.clients+n); err != nil {
					failures[n]++
					continue
				}
				times[n] = append(times[n], time.Since(began))
			}
		})
	}
	all.Wait()
	took := time.Since(start)
	sorted := slices.Concat(times...)
	slices.Sort(sorted)
	r := result{Call: c.name, Clients: l.clients, Calls: len(sorted), Seconds: took.Seconds()}
	for _, f := range failures {
		r.Failures += f
	}
	if len(sorted) > 0 {
		at := func(share float64) float64 {
			return float64(sorted[int(share*float64(len(sorted)-1))].Microseconds()) / 1000
		}
		r.PerSec, r.P50, r.P99, r.Slowest = float64(len(sorted))/took.Seconds(), at(0.5), at(0.99), at(1)
	}
	return r, nil
}

func (l *load) do(ctx context.Context, c call, i int) error {
	body := []byte(c.body(i))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+"/", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("build the request: %w", err)
	}
	req.Header.Set("Content-Type", c.contentType)
	if c.target != "" {
		req.Header.Set("X-Amz-Target", c.target)
	}
	sum := sha256.Sum256(body)
	signer := v4.NewSigner()
	if err := signer.SignHTTP(ctx, l.credentials, req, hex.EncodeToString(sum[:]), c.service, l.region, time.Now()); err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	res, err := l.client.Do(req)
	if err != nil {
		return fmt.Errorf("call: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %.300s", res.StatusCode, answer)
	}
	return nil
}
