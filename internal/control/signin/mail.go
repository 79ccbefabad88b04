package signin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// Mail is one message to one user, in plain text.
type Mail struct {
	ID      string // unique; the same again when it is tried again
	To      string // e-mail address
	Subject string
	Text    string // lines end with "\n"
	Created time.Time
}

// Mailer delivers mail. Send returns when the mail is somebody else's to deliver, or why it is not. A mail that ErrRejected is of is
// not tried again.
type Mailer interface {
	Send(ctx context.Context, m Mail) error
}

// ErrRejected says that a mail will never be accepted.
var ErrRejected = errors.New("mail was rejected for good")

const (
	// maxMails bounds the queue. When it is full, what would add to it is refused, and a request for a new password gets no mail.
	maxMails     = 1000
	mailTimeout  = 2 * time.Minute // of one attempt
	firstRetry   = 15 * time.Second
	longestRetry = 30 * time.Minute
)

// queued is a mail that waits, as stored. Its text may hold a password: it is sealed.
type queued struct {
	ID       string // time and random letters: mails go out in the order in which they came
	Sealed   []byte
	Expires  time.Time
	Next     time.Time `json:",omitzero"`
	Attempts int       `json:",omitempty"`
	Failure  string    `json:",omitempty"` // of the last attempt
}

var mails = state.Table[queued]{Kind: "mail", ID: func(m *queued) string { return m.ID }}

// post adds a mail to the queue. It is kept until it was delivered or is worth nothing any more.
func (s *Service) post(tx state.Tx, m Mail, life time.Duration) error {
	n, err := tx.Count(mails.Kind, state.Key{})
	if err != nil {
		return err
	}
	if n >= maxMails {
		return fault.Newf(fault.Limit, "mail", "", "%d mails wait to be delivered; see to the mail server first", n)
	}
	now := s.Now().UTC()
	m.Created = now
	m.ID = fmt.Sprintf("%016x-%s", now.UnixNano(), strings.ToLower(randomText(12)))
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode mail: %w", err)
	}
	return mails.Put(tx, &queued{ID: m.ID, Sealed: s.sealed.Seal(nil, nil, body, []byte("mail "+m.ID)), Expires: now.Add(life)})
}

// deliver sends what waits, one after the other, until ctx ends. The change feed wakes it.
func (s *Service) deliver(ctx context.Context) error {
	if s.Mailer == nil {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		at, next, err := s.deliverDue(ctx)
		if err != nil && ctx.Err() == nil {
			s.Log.Warn("mail could not be looked at", "error", err)
			next = s.Now().Add(firstRetry)
		}
		s.awaitMail(ctx, at, next)
	}
	return nil
}

// deliverDue tries every mail that is due, and says at which revision it looked and when the next is due (zero: none waits).
func (s *Service) deliverDue(ctx context.Context) (at state.Revision, next time.Time, err error) {
	due, err := state.Read(ctx, s.Store, func(r state.Reader) ([]*queued, error) {
		if at, err = r.Revision(); err != nil {
			return nil, err
		}
		return mails.List(r, state.Query{})
	})
	if err != nil {
		return at, next, err
	}
	for _, m := range due {
		if s.Now().Before(m.Next) {
			if next.IsZero() || m.Next.Before(next) {
				next = m.Next
			}
			continue
		}
		if err := s.deliverOne(ctx, m); err != nil {
			return at, next, err
		}
		if !m.Next.IsZero() && (next.IsZero() || m.Next.Before(next)) {
			next = m.Next
		}
	}
	return at, next, nil
}

// deliverOne tries one mail, then removes it or says in it when it is tried again.
func (s *Service) deliverOne(ctx context.Context, q *queued) error {
	drop := func() error {
		_, err := s.Store.Update(ctx, func(tx state.Tx) error { return mails.Delete(tx, q.ID) })
		q.Next = time.Time{}
		return err
	}
	if !s.Now().Before(q.Expires) {
		s.Log.Warn("mail was not delivered in time and is dropped", "mail", q.ID, "attempts", q.Attempts, "failure", q.Failure)
		return drop()
	}
	body, err := s.sealed.Open(nil, nil, q.Sealed, []byte("mail "+q.ID))
	var m Mail
	if err == nil {
		err = json.Unmarshal(body, &m)
	}
	if err != nil {
		s.Log.Error("mail cannot be read and is dropped", "mail", q.ID, "error", err)
		return drop()
	}
	sending, cancel := context.WithTimeout(ctx, mailTimeout)
	defer cancel()
	switch err = s.Mailer.Send(sending, m); {
	case err == nil:
		s.Log.Info("mail was delivered", "mail", q.ID, "attempts", q.Attempts+1)
		return drop()
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrRejected):
		s.Log.Error("mail was rejected and is dropped", "mail", q.ID, "error", err)
		return drop()
	}
	q.Next = s.Now().UTC().Add(min(firstRetry<<min(q.Attempts, 20), longestRetry))
	q.Attempts++
	q.Failure = err.Error()
	s.Log.Warn("mail could not be delivered", "mail", q.ID, "attempts", q.Attempts, "again", q.Next, "error", err)
	_, err = s.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := mails.Get(tx, q.ID); err != nil || !ok {
			return err
		}
		return mails.Put(tx, q)
	})
	return err
}

// awaitMail waits until something was written after at, or until next.
func (s *Service) awaitMail(ctx context.Context, at state.Revision, next time.Time) {
	if !next.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(next.Sub(s.Now()), 0))
		defer cancel()
	}
	for {
		changes, err := s.Store.Changes(ctx, at)
		if err != nil {
			return
		}
		for _, c := range changes {
			if c.Kind == mails.Kind && !c.Deleted {
				return
			}
			at = c.Revision
		}
	}
}

// WaitingMail is a mail that was not delivered yet, for the operator: without its text.
type WaitingMail struct {
	ID       string    `json:"id"`
	Expires  time.Time `json:"expires"`
	Attempts int       `json:"attempts"`
	Failure  string    `json:"failure,omitempty"`
}

// WaitingMails lists the queue, oldest first.
func (s *Service) WaitingMails(ctx context.Context) ([]WaitingMail, error) {
	return state.Read(ctx, s.Store, func(r state.Reader) ([]WaitingMail, error) {
		all, err := mails.List(r, state.Query{})
		out := make([]WaitingMail, 0, len(all))
		for _, m := range all {
			out = append(out, WaitingMail{m.ID, m.Expires, m.Attempts, m.Failure})
		}
		return out, err
	})
}

func (s *Service) greeting(u *appstream.User) string {
	if u.FirstName == "" {
		return "Hello,"
	}
	return "Hello " + strings.TrimSpace(u.FirstName+" "+u.LastName) + ","
}

func (s *Service) welcome(u *appstream.User, password string) Mail {
	return Mail{
		To: u.Name, Subject: "Your access to " + s.Product,
		Text: s.greeting(u) + "\n\nan administrator gave you access to applications that you use in your browser:\n\n  " + s.PublicURL +
			"\n\nSign in with\n\n  user name           " + u.Name + "\n  temporary password  " + password +
			"\n\nYou choose a password of your own then. The temporary one works for 7 days.\n",
	}
}

func (s *Service) assigned(u *appstream.User, st *appstream.Stack) Mail {
	return Mail{
		To: u.Name, Subject: "New applications in " + s.Product,
		Text: s.greeting(u) + "\n\nan administrator assigned you the applications of " + titleOf(st) + ". Sign in to use them:\n\n  " + s.PublicURL + "\n",
	}
}

func (s *Service) removed(u *appstream.User, st *appstream.Stack) Mail {
	return Mail{
		To: u.Name, Subject: "Applications removed in " + s.Product,
		Text: s.greeting(u) + "\n\nan administrator removed the applications of " + titleOf(st) + " from your account.\n",
	}
}

func (s *Service) resetMail(u *appstream.User, code string) Mail {
	return Mail{
		To: u.Name, Subject: "Your code for a new password in " + s.Product,
		Text: s.greeting(u) + "\n\nsomebody, probably you, asked for a new password. Where you asked, enter\n\n  code  " + code +
			"\n\nIt works once, for 24 hours. If you did not ask, do nothing: your password stays as it is.\n\n  " + s.PublicURL + "\n",
	}
}

func titleOf(st *appstream.Stack) string {
	if st.DisplayName != "" {
		return st.DisplayName
	}
	return st.Name
}
