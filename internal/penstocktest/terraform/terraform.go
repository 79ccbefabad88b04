// Package terraform runs Terraform with the AWS provider against a server, for tests.
package terraform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const provider = `
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = %q
  secret_key                  = %q
  skip_metadata_api_check     = true
  skip_region_validation      = true
  endpoints {
    appstream = %[3]q
    ec2       = %[3]q
    iam       = %[3]q
    sts       = %[3]q
  }
}
`

// runTime bounds one run of Terraform.
const runTime = 4 * time.Minute

// Need skips where Terraform cannot run, or was not asked for.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv("PENSTOCK_E2E") != "1" {
		t.Skip("needs PENSTOCK_E2E=1: Terraform takes a minute (make e2e)")
	}
	if _, err := exec.LookPath("terraform"); err != nil {
		t.Skipf("terraform is missing: %v", err)
	}
	if providerMirror() == "" {
		t.Skip("the AWS provider 5.100.0 is missing: put a filesystem mirror with it into PENSTOCK_TEST_TF_PLUGINS")
	}
}

// Prepare makes a folder with a configuration for the server at url and its access key, and answers how to run Terraform in it: with the
// wanted exit status and its arguments, for what it printed.
func Prepare(t testing.TB, url, keyID, secret, config string) func(want int, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("terraformrc", fmt.Sprintf("provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", providerMirror()))
	write("main.tf", fmt.Sprintf(provider, keyID, secret, url)+config)
	return func(want int, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), runTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, "terraform", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(dir, "terraformrc"), "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "AWS_EC2_METADATA_DISABLED=true")
		out, err := cmd.CombinedOutput()
		code := 0
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			code = e.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != want {
			t.Fatalf("terraform %s: exit %d, want %d\n%s", strings.Join(args, " "), code, want, out)
		}
		return string(out)
	}
}

// providerMirror is a folder of Terraform plugins that holds the provider; empty when there is none.
func providerMirror() string {
	for _, dir := range []string{
		os.Getenv("PENSTOCK_TEST_TF_PLUGINS"), os.ExpandEnv("$HOME/.terraform.d/plugins"),
		"/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins", "/opt/tf-plugins",
	} {
		if dir == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, "registry.terraform.io/hashicorp/aws/5.100.0")); err == nil {
			return dir
		}
	}
	return ""
}
