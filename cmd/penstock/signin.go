package main

import (
	"flag"
	"fmt"
	"net/mail"
	"path/filepath"
	"time"

	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/mailer"
)

// signInConfig is how users sign in.
type signInConfig struct {
	userQuota    int
	idle, life   time.Duration
	secondFactor string
}

func (c *signInConfig) flags(fs *flag.FlagSet) {
	fs.IntVar(&c.userQuota, "user-quota", signin.DefaultUserQuota, "greatest `number` of users in the user pool")
	fs.DurationVar(&c.idle, "sign-in-idle", signin.DefaultIdle, "`time` after which a sign-in at the portal ends when it is not used")
	fs.DurationVar(&c.life, "sign-in-life", signin.DefaultLife, "`time` after which a sign-in at the portal ends in any case")
	fs.StringVar(&c.secondFactor, "second-factor", string(signin.FactorOptional), "`who` of the user pool has a second factor: off, optional or required")
}

const (
	minSignIn = time.Minute
	maxSignIn = 30 * 24 * time.Hour
)

func (c *signInConfig) check() error {
	if c.userQuota < 1 || c.userQuota > 100_000 {
		return fmt.Errorf("--user-quota %d is not between 1 and 100000", c.userQuota)
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"--sign-in-idle", c.idle}, {"--sign-in-life", c.life}} {
		if d.value < minSignIn || d.value > maxSignIn {
			return fmt.Errorf("%s %v is not between %v and %v", d.flag, d.value, minSignIn, maxSignIn)
		}
	}
	switch signin.SecondFactor(c.secondFactor) {
	case signin.FactorOff, signin.FactorOptional, signin.FactorRequired:
		return nil
	}
	return fmt.Errorf("--second-factor %q is not off, optional or required", c.secondFactor)
}

// openSignIn builds the service of users and sign-ins.
func (r *region) openSignIn(publicURL string) (*signin.Service, error) {
	c := r.config.signIn
	return signin.New(signin.Options{
		Store: r.store, Seed: r.identity.Seed, Hasher: argon.New(argon.Options{}), PublicURL: publicURL,
		Mailer:    mailer.Files{Dir: filepath.Join(r.config.dataDir, "mail"), From: mail.Address{Name: "Penstock", Address: "penstock@localhost"}},
		UserQuota: c.userQuota, Idle: c.idle, Life: c.life, SecondFactor: signin.SecondFactor(c.secondFactor), Audit: r.audit, Log: r.log.With("part", "sign-in"),
	})
}
