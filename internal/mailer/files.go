package mailer

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"

	"penstock.dev/penstock/internal/control/signin"
)

// Files writes each mail into a file of a folder, ID.eml with mode 0600, for an operator who hands it on: it may hold a password.
type Files struct {
	Dir  string
	From mail.Address
}

// Send writes the mail, whole or not at all.
func (f Files) Send(_ context.Context, m signin.Mail) error {
	body, err := compose(f.From, m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of mails: %w", err)
	}
	tmp, err := os.CreateTemp(f.Dir, ".mail-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write mail: %w", err)
	}
	_, err = tmp.Write(body)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), filepath.Join(f.Dir, m.ID+".eml"))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write mail: %w", err), os.Remove(tmp.Name()))
	}
	return nil
}
