package main

import (
	"errors"
	"flag"
	"fmt"
	"net/mail"
	"path/filepath"
	"time"

	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/federation"
	"penstock.dev/penstock/internal/mailer"
	"penstock.dev/penstock/internal/portal"
)

// signInConfig is how users sign in.
type signInConfig struct {
	idle, life   time.Duration
	secondFactor string
	providers    string // file
	smtp         mailer.SMTP
}

func (c *signInConfig) flags(fs *flag.FlagSet) {
	fs.DurationVar(&c.idle, "sign-in-idle", signin.DefaultIdle, "`time` after which a sign-in at the portal ends when it is not used")
	fs.DurationVar(&c.life, "sign-in-life", signin.DefaultLife, "`time` after which a sign-in at the portal ends in any case")
	fs.StringVar(&c.secondFactor, "second-factor", string(signin.FactorOptional), "`who` of the user pool has a second factor: off, optional or required")
	fs.StringVar(&c.smtp.Addr, "smtp-addr", "", "`address` of the mail server for mails to users, HOST:PORT (without: mails are files in DIR/mail)")
	fs.StringVar(&c.smtp.Security, "smtp-security", mailer.StartTLS, "`how` the mail server is reached: starttls, tls (from the first byte on) or none (on this machine alone)")
	fs.StringVar(&c.smtp.From.Address, "smtp-from", "", "sender's `address` of mails to users")
	fs.StringVar(&c.smtp.User, "smtp-user", "", "`name` to sign in with at the mail server")
	fs.StringVar(&c.smtp.PasswordFile, "smtp-password-file", "", "`file` with the password of --smtp-user")
	fs.StringVar(&c.smtp.CAFile, "smtp-ca-file", "", "`file` with the certificates that the mail server is trusted by, in PEM (without: this machine's)")
	fs.StringVar(&c.providers, "identity-providers", "", "`file` of the OpenID Connect and SAML providers by which users sign in (docs/sign-in.md)")
}

const (
	minSignIn = time.Minute
	maxSignIn = 30 * 24 * time.Hour
)

func (c *signInConfig) check() error {
	if c.smtp.Addr != "" {
		c.smtp.From.Name = "Penstock"
		if err := c.smtp.Check(); err != nil {
			return fmt.Errorf("--smtp-…: %w", err)
		}
	} else if c.smtp.From.Address+c.smtp.User+c.smtp.PasswordFile+c.smtp.CAFile != "" {
		return errors.New("--smtp-from, --smtp-user, --smtp-password-file and --smtp-ca-file go with --smtp-addr")
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
		Mailer: c.mailer(r.config.dataDir), UserQuota: r.config.limits.Users, Idle: c.idle, Life: c.life, SecondFactor: signin.SecondFactor(c.secondFactor), Audit: r.audit, Log: r.log.With("part", "sign-in"),
	})
}

// mailer hands mails to the mail server, or into files for the operator where there is none.
func (c *signInConfig) mailer(dataDir string) signin.Mailer {
	if c.smtp.Addr != "" {
		return &c.smtp
	}
	return mailer.Files{Dir: filepath.Join(dataDir, "mail"), From: mail.Address{Name: "Penstock", Address: "penstock@localhost"}}
}

// openFederation builds the sign-in by identity providers; nil without any.
func (r *region) openFederation(p *portal.Portal, publicURL string) (*federation.Federation, error) {
	if r.config.signIn.providers == "" {
		return nil, nil
	}
	providers, err := federation.Load(r.config.signIn.providers)
	if err != nil {
		return nil, err
	}
	return federation.New(federation.Options{
		Providers: providers, SignIn: r.signIn, Browser: p, Roles: r.access, Audit: r.audit, PublicURL: publicURL, AccountID: r.identity.AccountID, Seed: r.identity.Seed,
		KeyDir: filepath.Join(r.config.dataDir, "saml"), Port: r.publicPort(), Secure: r.config.secure(), Log: r.log.With("part", "federation"),
	})
}
