package channel_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/wire/channel"
)

// vector is one entry of testdata/*.json. The TypeScript twin reads the same files.
type vector struct {
	Name      string          `json:"name"`
	Direction string          `json:"direction"`
	Fields    []string        `json:"fields"`
	Hex       string          `json:"hex"`
	Message   json.RawMessage `json:"message"`
	Error     string          `json:"error"`
}

func (v *vector) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(v.Hex, " ", ""))
	if err != nil {
		t.Fatalf("vector %q: %v", v.Name, err)
	}
	return b
}

func (v *vector) sender(t testing.TB) channel.Sender {
	t.Helper()
	switch v.Direction {
	case "viewer-to-agent":
		return channel.FromViewer
	case "agent-to-viewer":
		return channel.FromAgent
	}
	t.Fatalf("vector %q: direction %q", v.Name, v.Direction)
	return 0
}

func connection(b []byte) channel.Connection {
	if len(b) > 0 && b[0]&0xf0 == 0x20 {
		return channel.Display
	}
	return channel.Control
}

func vectors(t testing.TB) map[string][]vector {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata: %v, %d files", err, len(files))
	}
	all := map[string][]vector{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var list []vector
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = list
	}
	return all
}

// described is the form in which a message stands in the vectors: byte arrays as hex, kinds by name.
func described(t testing.TB, m channel.Message) map[string]any {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	switch m := m.(type) {
	case *channel.Cursor:
		got["rgba"] = hex.EncodeToString(m.RGBA)
	case *channel.Update:
		delete(got, "Sections")
		sections := []any{}
		for _, s := range m.Sections {
			var entry any
			switch s.Kind {
			case channel.SectionCopy:
				entry = map[string]any{"kind": "copy", "copies": s.Copies}
			case channel.SectionFill:
				entry = map[string]any{"kind": "fill", "fills": s.Fills}
			case channel.SectionTiles:
				entry = map[string]any{"kind": "tiles", "rawLength": s.RawLength, "tiles": hex.EncodeToString(s.Tiles)}
			case channel.SectionText:
				entry = map[string]any{"kind": "text", "rawLength": s.RawLength, "tiles": hex.EncodeToString(s.Tiles)}
			case channel.SectionJPEG:
				entry = struct {
					Kind string `json:"kind"`
					channel.JPEGHeader
					Data string `json:"data"`
				}{"jpeg", s.JPEG, hex.EncodeToString(s.Data)}
			case channel.SectionVideo:
				entry = struct {
					Kind string `json:"kind"`
					channel.VideoHeader
					Data string `json:"data"`
				}{"video", s.Video, hex.EncodeToString(s.Data)}
			default:
				t.Fatalf("section of kind %d", s.Kind)
			}
			b, err := json.Marshal(entry)
			if err != nil {
				t.Fatal(err)
			}
			var plain any
			if err := json.Unmarshal(b, &plain); err != nil {
				t.Fatal(err)
			}
			sections = append(sections, plain)
		}
		got["sections"] = sections
	}
	return got
}

func TestVectors(t *testing.T) {
	t.Parallel()
	good := 0
	for name, list := range vectors(t) {
		t.Run(name, func(t *testing.T) {
			for _, v := range list {
				b := v.bytes(t)
				m, err := channel.Parse(connection(b), v.sender(t), b)
				if v.Error != "" {
					if err == nil {
						t.Errorf("%s: decoded to %+v, want %s", v.Name, m, v.Error)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", v.Name, err)
					continue
				}
				good++
				want := map[string]any{}
				if err := json.Unmarshal(v.Message, &want); err != nil {
					t.Fatalf("%s: %v", v.Name, err)
				}
				if diff := cmp.Diff(want, described(t, m)); diff != "" {
					t.Errorf("%s: want(-) got(+)\n%s", v.Name, diff)
				}
				if m.Type() != channel.Type(b[0]) {
					t.Errorf("%s: type %v, want %v", v.Name, m.Type(), channel.Type(b[0]))
				}
				groups := strings.Fields(v.Hex)
				if len(groups) != len(v.Fields) {
					t.Errorf("%s: %d fields are named, %d are in the bytes", v.Name, len(v.Fields), len(groups))
				}
				if i := len(v.Fields) - 1; v.Fields[i] == "ignored" {
					b = b[:len(b)-len(groups[i])/2]
				}
				if got := m.Append([]byte("before")); !bytes.Equal(got, append([]byte("before"), b...)) {
					t.Errorf("%s: encoded to\n%x, want\n%x", v.Name, got[6:], b)
				}
			}
		})
	}
	if good < 30 {
		t.Errorf("only %d vectors decode", good)
	}
}

// Each good message, cut at any length, is refused or decodes to a message without the lost bytes; it
// never reads behind its end.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for name, list := range vectors(t) {
		for _, v := range list {
			if v.Error != "" {
				continue
			}
			b := v.bytes(t)
			for n := range b {
				m, err := channel.Parse(connection(b), v.sender(t), b[:n:n])
				if err != nil {
					continue
				}
				if i := len(v.Fields) - 1; v.Fields[i] != "ignored" {
					t.Errorf("%s %q: the first %d of %d bytes decode to %+v", name, v.Name, n, len(b), m)
				}
			}
		}
	}
}

func TestWrongPlace(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		conn   channel.Connection
		sender channel.Sender
		m      channel.Message
		want   string
	}{
		"input on display":         {channel.Display, channel.FromViewer, &channel.Pointer{Seq: 1}, "pointer: not sent on this connection in this direction"},
		"update on control":        {channel.Control, channel.FromAgent, &channel.Update{}, "update: not sent on this connection in this direction"},
		"start on control":         {channel.Control, channel.FromViewer, &channel.Start{}, "start: not sent on this connection in this direction"},
		"welcome from the viewer":  {channel.Control, channel.FromViewer, &channel.Welcome{}, "welcome: not sent on this connection in this direction"},
		"ping on display":          {channel.Display, channel.FromViewer, &channel.Ping{}, "ping: not sent on this connection in this direction"},
		"text too large to be one": {channel.Control, channel.FromViewer, &channel.Text{Text: strings.Repeat("x", 65535)}, "text: larger than the greatest message"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := channel.Parse(tt.conn, tt.sender, tt.m.Append(nil))
			if err == nil {
				t.Fatalf("got %+v, want an error", m)
			}
			if err.Error() != tt.want {
				t.Errorf("got %q, want %q", err, tt.want)
			}
		})
	}
}

func TestStringsAreCut(t *testing.T) {
	t.Parallel()
	m := channel.Key{Seq: 1, Code: strings.Repeat("é", 200), Key: "a\xffb"}
	got, err := channel.Parse(channel.Control, channel.FromViewer, m.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := &channel.Key{Seq: 1, Code: strings.Repeat("é", 127), Key: "a\ufffdb"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want(-) got(+)\n%s", diff)
	}
}

func TestAppendUpdateDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 4096)
	payload := make([]byte, 1000)
	h := channel.UpdateHeader{Seq: 1, Epoch: 1, Width: 640, Height: 480}
	allocs := testing.AllocsPerRun(100, func() {
		b := channel.AppendUpdateHeader(buf[:0], &h, 1)
		b = channel.AppendTiles(b, 5000, payload)
		if len(b) == 0 {
			t.Fatal("empty")
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want 0", allocs)
	}
}

func TestDrawTiles(t *testing.T) {
	t.Parallel()
	const width, height = 66, 65 // four tiles, three of them cut
	tests := map[string]struct {
		raw  string // hex
		want string // error; empty for none
	}{
		"nothing":                      {"", ""},
		"solid edge tile":              {"01 01 10 0a0b0c", ""},
		"raw edge tile":                {"01 01 00 010203 040506", ""},
		"one bit, 2×1":                 {"01 01 01 01 000000 ffffff 02", ""},
		"two bits, 2×1":                {"01 01 02 02 000000 ffffff 0000ff 08", ""},
		"four bits, 2×1":               {"01 01 04 00 010101 00", ""},
		"eight bits, 2×1":              {"01 01 08 01 010101 020202 01 00", ""},
		"outside by column":            {"02 00 10 000000", "update: tile: outside the screen"},
		"outside by row":               {"00 02 10 000000", "update: tile: outside the screen"},
		"no coding":                    {"00 00", "update: tile: too short"},
		"unknown coding":               {"00 00 03", "update: tile: unknown coding"},
		"raw too short":                {"01 01 00 010203 0405", "update: tile: too short"},
		"solid too short":              {"01 01 10 0102", "update: tile: too short"},
		"palette too short":            {"01 01 08 01 010101 0202", "update: tile: too short"},
		"rows too short":               {"01 01 08 00 010101 00", "update: tile: too short"},
		"three colours in one bit":     {"01 01 01 02 000000 000000 000000 00", "update: tile: more colours than its coding can name"},
		"index behind a short palette": {"01 01 04 01 000000 000000 20", "update: tile: index is not in the palette"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			raw, err := hex.DecodeString(strings.ReplaceAll(tt.raw, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := channel.DrawTiles(raw, make([]byte, width*height*4), width, height); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("pixels", func(t *testing.T) {
		picture := make([]byte, width*height*4)
		// Colours 0 red, 1 green; the left pixel is in the lowest bit.
		if err := channel.DrawTiles([]byte{1, 1, 1, 1, 255, 0, 0, 0, 255, 0, 0b01}, picture, width, height); err != nil {
			t.Fatal(err)
		}
		at := (64*width + 64) * 4
		want := []byte{0, 255, 0, 255, 255, 0, 0, 255}
		if got := picture[at:]; !bytes.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
	t.Run("wrong picture", func(t *testing.T) {
		if err := channel.DrawTiles(nil, make([]byte, 5), width, height); err == nil {
			t.Error("got no error")
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, list := range vectors(f) {
		for _, v := range list {
			f.Add(uint8(connection(v.bytes(f))), uint8(v.sender(f)), v.bytes(f))
		}
	}
	f.Fuzz(func(t *testing.T, conn, sender uint8, b []byte) {
		c, s := channel.Connection(conn%2), channel.Sender(sender%2)
		m, err := channel.Parse(c, s, b)
		if err != nil {
			return
		}
		again, err := channel.Parse(c, s, m.Append(nil))
		if err != nil {
			t.Fatalf("%+v does not survive its own encoding: %v", m, err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("first(-) second(+)\n%s", diff)
		}
	})
}

func FuzzDrawTiles(f *testing.F) {
	f.Add([]byte{1, 1, 1, 1, 255, 0, 0, 0, 255, 0, 0b01}, uint8(66), uint8(65))
	f.Add([]byte{0, 0, 16, 1, 2, 3}, uint8(1), uint8(1))
	f.Add([]byte{0, 0, 0, 1, 2, 3}, uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, raw []byte, width, height uint8) {
		w, h := int(width)+1, int(height)+1
		picture := make([]byte, w*h*4)
		_ = channel.DrawTiles(raw, picture, w, h) // must neither panic nor read behind the end
	})
}
