package mailer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"os"
	"strings"
	"time"

	"penstock.dev/penstock/internal/control/signin"
)

// How the connection to a mail server is encrypted.
const (
	StartTLS = "starttls" // begins in the clear; a server that offers no STARTTLS is refused
	Implicit = "tls"      // from the first byte on
	Plain    = "none"     // for a server on this machine alone
)

// SMTP hands mails to a mail server.
type SMTP struct {
	Addr         string // HOST:PORT
	Security     string // StartTLS, Implicit or Plain
	From         mail.Address
	User         string // empty: no authentication
	PasswordFile string // read for every mail, so that it can be changed
	CAFile       string // certificates that the server is trusted by, in PEM; empty: the machine's
	Hello        string // name that we greet with; empty: localhost
}

const dialTimeout = 15 * time.Second

// Check refuses settings that cannot work or that would tell a password.
func (s *SMTP) Check() error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("mail server %q is not HOST:PORT", s.Addr)
	}
	if _, err := mail.ParseAddress(s.From.Address); err != nil {
		return fmt.Errorf("sender %q is not an e-mail address", s.From.Address)
	}
	switch s.Security {
	case StartTLS, Implicit:
	case Plain:
		if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
			return fmt.Errorf("mail to %s would travel in the clear with passwords in it; only a server on this machine may be reached without TLS", host)
		}
	default:
		return fmt.Errorf("security %q is not %s, %s or %s", s.Security, StartTLS, Implicit, Plain)
	}
	if (s.User == "") != (s.PasswordFile == "") {
		return errors.New("the user of the mail server and the file with its password go together")
	}
	return nil
}

// Send hands one mail over on a connection of its own, within ctx.
func (s *SMTP) Send(ctx context.Context, m signin.Mail) error {
	body, err := compose(s.From, m)
	if err != nil {
		return err
	}
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := s.login(c); err != nil {
		return err
	}
	if err := c.Mail(s.From.Address); err != nil {
		return fmt.Errorf("mail server refused the sender: %w", err)
	}
	if err := c.Rcpt(m.To); err != nil {
		return rejected("the recipient", err)
	}
	w, err := c.Data()
	if err != nil {
		return rejected("the mail", err)
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("send mail: %w", err)
	}
	if err := w.Close(); err != nil {
		return rejected("the mail", err)
	}
	_ = c.Quit() // the mail is the server's already
	return nil
}

// rejected tells what a server will never take from what it does not take now.
func rejected(what string, err error) error {
	if p, ok := errors.AsType[*textproto.Error](err); ok && p.Code >= 500 {
		return fmt.Errorf("mail server rejected %s: %w: %w", what, p, signin.ErrRejected)
	}
	return fmt.Errorf("mail server refused %s: %w", what, err)
}

func (s *SMTP) dial(ctx context.Context) (*smtp.Client, error) {
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, err
	}
	config, err := s.tls(host)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, fmt.Errorf("connect to the mail server: %w", err)
	}
	// net/smtp knows no contexts: the deadline and the end of ctx end every read and write.
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	if s.Security == Implicit {
		conn = tls.Client(conn, config)
	}
	c, err := smtp.NewClient(&watched{conn, stop}, host)
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, fmt.Errorf("greet the mail server: %w", err)
	}
	hello := s.Hello
	if hello == "" {
		hello = "localhost"
	}
	if err = c.Hello(hello); err == nil && s.Security == StartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			err = errors.New("it offers no STARTTLS, and mail is not sent in the clear")
		} else {
			err = c.StartTLS(config)
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("greet the mail server: %w", err)
	}
	return c, nil
}

// watched is a connection that is no longer watched once it was closed.
type watched struct {
	net.Conn
	stop func() bool
}

func (w *watched) Close() error {
	w.stop()
	return w.Conn.Close()
}

func (s *SMTP) tls(host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if s.CAFile == "" {
		return c, nil
	}
	b, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("certificates of the mail server: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate", s.CAFile)
	}
	return c, nil
}

func (s *SMTP) login(c *smtp.Client) error {
	if s.User == "" {
		return nil
	}
	b, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return fmt.Errorf("password of the mail server: %w", err)
	}
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	// PlainAuth refuses to send the password in the clear to another machine.
	if err := c.Auth(smtp.PlainAuth("", s.User, strings.TrimRight(string(b), "\r\n"), host)); err != nil {
		return fmt.Errorf("sign in at the mail server: %w", err)
	}
	return nil
}
