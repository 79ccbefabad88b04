package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"

	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/network"
)

// limitsConfig are the account's quotas; zero values stand for the defaults.
type limitsConfig struct {
	network.Limits
	only bool // print them and exit
}

func (c *limitsConfig) flags(fs *flag.FlagSet) {
	fs.Func("limits", "`file` with the account's quotas, a JSON object; --check-config prints all of them (default: AWS's)", func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		c.Limits, err = network.ReadLimits(f)
		return err
	})
	fs.BoolVar(&c.only, "check-config", false, "check the flags and files, print the quotas in force and exit")
}

// appstream are AppStream's own quotas.
func (c *limitsConfig) appstream() control.Quotas {
	return control.Quotas{ImageBuilders: c.ImageBuilders, AppBlockBuilders: c.AppBlockBuilders, AppBlocks: c.AppBlocks}
}

// write writes the limits in force in the form of their file.
func (c *limitsConfig) write(out io.Writer) error {
	l := c.Limits
	if l == (network.Limits{}) {
		l = network.DefaultLimits()
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(b))
	return err
}
