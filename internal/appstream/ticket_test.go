package appstream_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
)

func keys(t testing.TB) (ed25519.PrivateKey, func(string, appstream.SessionID) ed25519.PublicKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return priv, func(id string, _ appstream.SessionID) ed25519.PublicKey {
		if id == appstream.KeyControl {
			return pub
		}
		return nil
	}
}

func TestTicket(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	priv, keyFor := keys(t)
	other, _ := keys(t)
	good := appstream.Ticket{
		ID: "abc", KeyID: appstream.KeyControl, Session: "s", Endpoint: "vpce-1", Channel: appstream.ChannelControl,
		Expires: now.Add(time.Minute),
	}
	sign := func(key ed25519.PrivateKey, change func(*appstream.Ticket)) string {
		tk := good
		change(&tk)
		s, err := appstream.SignTicket(key, tk)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	keep := func(*appstream.Ticket) {}
	whole := sign(priv, keep)
	head, tail, _ := strings.Cut(whole, ".")
	foreignHead, _, _ := strings.Cut(sign(priv, func(tk *appstream.Ticket) { tk.Session = "t" }), ".")
	for _, tc := range []struct {
		name, token string
		want        error
	}{
		{"good", whole, nil},
		{"expired", sign(priv, func(tk *appstream.Ticket) { tk.Expires = now }), appstream.ErrTicketExpired},
		{"other signer", sign(other, keep), appstream.ErrTicketSignature},
		{"unknown key", sign(priv, func(tk *appstream.Ticket) { tk.KeyID = "x" }), appstream.ErrTicketSignature},
		{"another's payload", foreignHead + "." + tail, appstream.ErrTicketSignature},
		{"no session", sign(priv, func(tk *appstream.Ticket) { tk.Session = "" }), appstream.ErrTicketMalformed},
		{"no expiry", sign(priv, func(tk *appstream.Ticket) { tk.Expires = time.Time{} }), appstream.ErrTicketMalformed},
		{"no signature", head, appstream.ErrTicketMalformed},
		{"empty signature", head + ".", appstream.ErrTicketSignature},
		{"padding", head + "." + tail + "=", appstream.ErrTicketMalformed},
		{"not JSON", "AAAA." + tail, appstream.ErrTicketMalformed},
		{"empty", "", appstream.ErrTicketMalformed},
		{"huge", strings.Repeat("A", 1<<20), appstream.ErrTicketMalformed},
	} {
		got, err := appstream.VerifyTicket(tc.token, keyFor, now)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: got error %v, want %v", tc.name, err, tc.want)
		}
		if err == nil && got != good {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, good)
		}
	}
}

func FuzzVerifyTicket(f *testing.F) {
	priv, keyFor := keys(f)
	tk := appstream.Ticket{ID: "a", KeyID: appstream.KeyControl, Session: "s", Endpoint: "e", Channel: "c", Expires: time.Unix(1<<33, 0)}
	good, err := appstream.SignTicket(priv, tk)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("a.b")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := appstream.VerifyTicket(token, keyFor, time.Unix(0, 0)); err == nil && token != good {
			t.Errorf("accepted a token that was not signed: %q", token)
		}
	})
}

func TestEffectiveUserSettingsListEveryAction(t *testing.T) {
	t.Parallel()
	got := appstream.EffectiveUserSettings([]appstream.UserSetting{{Action: "FILE_UPLOAD", Permission: appstream.Disabled}})
	if len(got) != 8 {
		t.Fatalf("got %d actions, want 8", len(got))
	}
	for _, s := range got {
		want := appstream.Enabled
		if s.Action == "FILE_UPLOAD" || s.Action == "DOMAIN_SMART_CARD_SIGNIN" {
			want = appstream.Disabled
		}
		if s.Permission != want {
			t.Errorf("%s: got %s, want %s", s.Action, s.Permission, want)
		}
	}
}

func TestRoundIdle(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]time.Duration{
		0: 0, 89 * time.Second: time.Minute, 90 * time.Second: 2 * time.Minute, 60 * time.Second: time.Minute,
	} {
		if got := appstream.RoundIdle(in); got != want {
			t.Errorf("RoundIdle(%v): got %v, want %v", in, got, want)
		}
	}
}
