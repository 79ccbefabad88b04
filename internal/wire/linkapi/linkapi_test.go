package linkapi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	. "penstock.dev/penstock/internal/wire/linkapi"
)

func messages() map[string]*Message {
	return map[string]*Message{
		"configure": {Configure: &Configure{
			Instance: "i-0123456789abcdef0", Folder: "/run/penstock/x", Home: "/run/penstock/x/home", OwnUser: true, MaxWidth: 2560, MaxHeight: 1440, XServer: "xvnc",
		}},
		"ready": {Ready: &Ready{Display: ":100", Xauthority: "/run/penstock/x/xauthority", PID: 4711, PublicKey: []byte{1, 2, 3}, Socket: "/run/penstock/x/viewer.sock"}},
		"begin": {Begin: &Begin{
			Session: "s", UserID: "ana", Stack: "office", Fleet: "f", Endpoint: "vpce-1",
			Application: Application{Name: "xterm", Command: []string{"xterm", "-e", "top"}}, ControlKey: []byte{9},
			DisconnectTimeout: time.Minute, IdleTimeout: time.Hour, EndsAt: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), DisplayPort: 1400, Width: 1280, Height: 720,
		}},
		"begun":  {Begun: &Begun{Session: "s"}},
		"failed": {Failed: &Failed{Reason: "Xvfb not found"}},
		"event":  {Event: &Event{Session: "s", Kind: Over, Code: 5, Reason: "the application closed"}},
		"end":    {End: &End{Code: 2, Reason: "an administrator ended the session"}},
	}
}

func TestMessagesComeBackAsSent(t *testing.T) {
	for name, want := range messages() {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Write(&b, want); err != nil {
				t.Fatal(err)
			}
			if err := Write(&b, want); err != nil {
				t.Fatal(err)
			}
			r := iotest.OneByteReader(&b)
			for range 2 {
				got, err := Read(r)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			}
			if _, err := Read(r); err != io.EOF { //nolint:errorlint // unwrapped by contract
				t.Errorf("after the last message: got %v, want EOF", err)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	b, err := Append(nil, &Message{Begun: &Begun{Session: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "\x19\x00\x00\x00" + `{"begun":{"session":"s"}}` // u32 length, JSON
	if string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	frame := func(s string) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(s))), s...)
	}
	for name, in := range map[string][]byte{
		"length beyond the bound":     {0xff, 0xff, 0xff, 0xff},
		"length just beyond":          binary.LittleEndian.AppendUint32(nil, MaxMessage+1),
		"not JSON":                    frame("begun"),
		"no bytes":                    frame(""),
		"null":                        frame("null"),
		"no kind":                     frame("{}"),
		"two kinds":                   frame(`{"begun":{"session":"s"},"end":{"code":1}}`),
		"two values":                  frame(`{"end":{"code":1}}{"end":{"code":1}}`),
		"begin without command":       frame(`{"begin":{"session":"s","endpoint":"e","application":{"name":"x","command":[]}}}`),
		"begin with negative timeout": frame(`{"begin":{"session":"s","application":{"command":["x"]},"idleTimeout":-1}}`),
		"unknown event":               frame(`{"event":{"session":"s","kind":"exploded"}}`),
		"code out of range":           frame(`{"end":{"code":70000}}`),
		"ready without pid":           frame(`{"ready":{"display":":1","socket":"/s"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := Read(bytes.NewReader(in)); !errors.Is(err, ErrMessage) {
				t.Errorf("got %+v, %v; want ErrMessage", m, err)
			}
		})
	}
}

func TestCutMessageIsNoCleanEnd(t *testing.T) {
	b, err := Append(nil, &Message{End: &End{Code: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(b); n++ {
		if _, err := Read(bytes.NewReader(b[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("first %d bytes: got %v, want unexpected EOF", n, err)
		}
	}
}

func TestSenderKeepsTheRules(t *testing.T) {
	for name, m := range map[string]*Message{
		"empty":   {},
		"two":     {End: &End{}, Begun: &Begun{Session: "s"}},
		"too big": {Failed: &Failed{Reason: strings.Repeat("x", MaxMessage)}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Write(io.Discard, m); !errors.Is(err, ErrMessage) {
				t.Errorf("got %v, want ErrMessage", err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	for _, m := range messages() {
		b, err := Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f, '{'})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		b, err := Append(nil, m)
		if err != nil {
			// Escapes may make the JSON longer than it came.
			if len(in) < MaxMessage/6 {
				t.Fatalf("accepted but not sendable: %v", err)
			}
			return
		}
		again, err := Read(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
