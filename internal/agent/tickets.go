package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/media"
)

const (
	// displayTicketLife bounds how long a display ticket waits for its use; the viewer asks for another.
	displayTicketLife = 2 * time.Minute
	// resumeTicketLife is longer than any session. That a viewer comes back in time is the disconnect
	// timeout's matter: when it has passed, the session is over.
	resumeTicketLife = 8 * 24 * time.Hour
	// maxUsed bounds the memory of used tickets.
	maxUsed = 4096
	// maxOwn bounds the unused tickets of one viewer.
	maxOwn = 8
)

// tickets remembers which tickets were used and which of the agent's own count. The agent's mutex guards it.
type tickets struct {
	used map[string]time.Time // IDs and when they expire
	// own are the IDs of the last tickets that the present viewer got, oldest first. Those of a viewer
	// that was replaced do not count, or the two would replace each other for ever.
	own []string
}

// admit checks a ticket for one connection to the session, uses it up and counts the connection as served.
func (a *Agent) admit(token string, channel appstream.Channel) *media.Close {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.spec == nil:
		return &media.Close{Code: media.CloseNoSession, Reason: "no session runs here"}
	case a.over != nil:
		return &media.Close{Code: media.CloseNoSession, Reason: "the session has ended: " + a.over.Reason}
	}
	now := a.now()
	t, err := appstream.VerifyTicket(token, a.ticketKey, now)
	switch {
	case errors.Is(err, appstream.ErrTicketExpired):
		return &media.Close{Code: media.CloseTicketExpired, Reason: "the ticket is past its time"}
	case err != nil:
		return &media.Close{Code: media.CloseBadTicket, Reason: err.Error()}
	case t.Session != a.spec.ID:
		return &media.Close{Code: media.CloseWrongChannel, Reason: "the ticket is for another session"}
	case t.Channel != channel:
		return &media.Close{Code: media.CloseWrongChannel, Reason: "the ticket is for another channel"}
	case t.Endpoint != a.spec.Endpoint:
		return &media.Close{Code: media.CloseWrongEndpoint, Reason: "the ticket belongs to another endpoint"}
	}
	if _, used := a.tickets.used[t.ID]; used {
		return &media.Close{Code: media.CloseTicketUsed, Reason: "the ticket was used before"}
	}
	if t.KeyID == appstream.KeySession && !slices.Contains(a.tickets.own, t.ID) {
		return &media.Close{Code: media.CloseReplaced, Reason: "a newer ticket replaced this one"}
	}
	for id, expires := range a.tickets.used {
		if !now.Before(expires) {
			delete(a.tickets.used, id)
		}
	}
	if len(a.tickets.used) >= maxUsed {
		return &media.Close{Code: media.CloseInternal, Reason: "too many tickets were used"}
	}
	a.tickets.used[t.ID] = t.Expires
	a.served.Add(1)
	return nil
}

// ticketKey is the key that proves a ticket. Whether it names this session is looked at once it is proved.
func (a *Agent) ticketKey(keyID string, _ appstream.SessionID) ed25519.PublicKey {
	switch keyID {
	case appstream.KeyControl:
		return a.spec.ControlKey
	case appstream.KeySession:
		return a.PublicKey()
	}
	return nil
}

// issueLocked signs a ticket of the session and returns it with its ID.
func (a *Agent) issueLocked(channel appstream.Channel, life time.Duration) (token, id string, err error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return "", "", err
	}
	id = base64.RawURLEncoding.EncodeToString(random)
	token, err = appstream.SignTicket(a.key, appstream.Ticket{
		ID: id, KeyID: appstream.KeySession, Session: a.spec.ID, Endpoint: a.spec.Endpoint,
		Channel: channel, Expires: a.now().Add(life),
	})
	return token, id, err
}

// newTicketsLocked issues both tickets of the viewer.
func (a *Agent) newTicketsLocked() (*media.Tickets, error) {
	display, displayID, err := a.issueLocked(appstream.ChannelDisplay, displayTicketLife)
	if err != nil {
		return nil, err
	}
	resume, resumeID, err := a.issueLocked(appstream.ChannelControl, resumeTicketLife)
	if err != nil {
		return nil, err
	}
	own := append(a.tickets.own, displayID, resumeID)
	a.tickets.own = own[max(0, len(own)-maxOwn):]
	return &media.Tickets{Display: display, Resume: resume}, nil
}
