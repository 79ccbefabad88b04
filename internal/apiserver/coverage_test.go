package apiserver

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/ec2api"
)

var update = flag.Bool("update", false, "write docs/api-coverage.md")

const coverageFile = "../../docs/api-coverage.md"

// TestCoverageDocument keeps docs/api-coverage.md what the server serves.
func TestCoverageDocument(t *testing.T) {
	t.Parallel()
	s, err := New(Options{
		AccountID: "123456789012", Region: "us-east-1", Credentials: iam.NewDirectory(nil, nil),
		Control: control.New(control.Options{}), Network: network.New(network.Config{}), Access: new(access.Service),
		Users: new(signin.Service), SAML: noAssertions{},
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("# API coverage\n\nWritten by `go test ./internal/apiserver -run TestCoverageDocument -update`; a test keeps it true.\n\n" +
		"Operations of the model that are not served are authenticated and then answered with `NotImplemented` (HTTP 501), never with a made-up\n" +
		"success. Members that this version cannot honour are refused by name.\n\n")
	for _, x := range []struct {
		name string
		of   service
	}{{"AppStream 2.0", appStream}, {"EC2", ec2}, {"IAM", iamService}, {"STS", sts}} {
		table := s.tables[x.of]
		var served, missing, more []string
		for name := range table.modeled {
			switch {
			case table.served[name] == nil:
				missing = append(missing, name)
			case x.of == ec2 && slices.Contains(ec2api.More(), name):
				more = append(more, name)
			default:
				served = append(served, name)
			}
		}
		slices.Sort(served)
		slices.Sort(missing)
		slices.Sort(more)
		fmt.Fprintf(&b, "## %s: %d of %d", x.name, len(served), len(table.modeled)-len(more))
		if len(more) > 0 {
			fmt.Fprintf(&b, ", and %d beyond", len(more))
		}
		b.WriteString("\n\n")
		list(&b, "Served", served)
		list(&b, "Served beyond the operations that networks of endpoints need", more)
		list(&b, "Not served", missing)
	}
	if *update {
		if err := os.WriteFile(coverageFile, b.Bytes(), 0o644); err != nil { //nolint:gosec // a document for everybody
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(coverageFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Error("docs/api-coverage.md is not what the server serves; run the test with -update")
	}
}

// noAssertions is a SAML provider that nobody has.
type noAssertions struct{ assertions }

func list(b *bytes.Buffer, title string, names []string) {
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(b, "%s:\n", title)
	width := 0
	for i, n := range names {
		if width == 0 || width+len(n) > 120 {
			b.WriteString("\n")
			width = 0
		}
		b.WriteString("`" + n + "`")
		if i < len(names)-1 {
			b.WriteString(" ")
		}
		width += len(n) + 3
	}
	b.WriteString("\n\n")
}
