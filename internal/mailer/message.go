// Package mailer delivers mails to users: to an SMTP server, or into files for the operator where there is none.
package mailer

import (
	"bytes"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"strings"
	"time"

	"penstock.dev/penstock/internal/control/signin"
)

// compose writes a mail as RFC 5322 has it. Header fields come from this package or are encoded: nothing in them can begin another.
func compose(from mail.Address, m signin.Mail) ([]byte, error) {
	to := mail.Address{Address: m.To}
	_, host, ok := strings.Cut(from.Address, "@")
	if !ok || strings.ContainsAny(m.To+m.ID+host, "\r\n") {
		return nil, fmt.Errorf("an address of the mail is not valid: %w", signin.ErrRejected)
	}
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", from.String()},
		{"To", to.String()},
		{"Subject", mime.QEncoding.Encode("utf-8", m.Subject)},
		{"Date", m.Created.Format(time.RFC1123Z)},
		{"Message-ID", "<" + m.ID + "@" + host + ">"},
		{"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
	}
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	if _, err := w.Write([]byte(strings.ReplaceAll(m.Text, "\n", "\r\n"))); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
