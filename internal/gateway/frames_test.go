package gateway

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

const answer101 = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"

// serverFrame is a frame as a server sends it, in the shortest form of its length.
func serverFrame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < shortLength:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, shortLength), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, shortLength+1), uint64(n))
	}
	return append(b, payload...)
}

// TestFrames: however the bytes are cut, the ends of frames are seen where they are and nowhere else.
func TestFrames(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		all := []byte(answer101)
		ends := map[int]bool{len(all): true}
		for range random.IntN(8) {
			sizes := []int{0, 1, 2, 125, 126, 127, 1000, 65535, 65536, 70000}
			all = append(all, serverFrame([]byte{0x82, 0x02, 0x80, 0x89}[random.IntN(4)], make([]byte, sizes[random.IntN(len(sizes))]))...)
			ends[len(all)] = true
		}
		var f frames
		for at := 0; at < len(all); {
			b := all[at:min(len(all), at+1+random.IntN(1<<(4+random.IntN(14))))]
			n := f.next(b)
			if n < 1 || n > len(b) {
				t.Fatalf("next took %d bytes of %d", n, len(b))
			}
			for end := range ends {
				if at < end && end < at+n {
					t.Fatalf("next went over the end at %d: from %d by %d", end, at, n)
				}
			}
			at += n
			if f.between() != ends[at] {
				t.Fatalf("between frames at %d: got %v", at, f.between())
			}
		}
	}
}

func TestFramesThatAreNotForUs(t *testing.T) {
	t.Parallel()
	goodbye := serverFrame(0x88, []byte{0x11, 0x3a})
	for name, sent := range map[string][]byte{
		"refused upgrade":        []byte("HTTP/1.1 403 Forbidden\r\n\r\n"),
		"another status of 1xx":  []byte("HTTP/1.1 102 Processing\r\n\r\n"),
		"short status line":      []byte("HTTP\r\n\r\n"),
		"behind a goodbye":       append([]byte(answer101), goodbye...),
		"in the answer":          []byte("HTTP/1.1 101 Switching Protocols\r\nA: \r\r\n"),
		"in a frame's head":      append([]byte(answer101), 0x82, 126, 1),
		"in a frame's payload":   append([]byte(answer101), 0x82, 2, 1),
		"in a masked frame":      append([]byte(answer101), 0x82, 0x81, 1, 2, 3, 4),
		"in the longest frame":   append([]byte(answer101), 0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0),
		"in an empty line's end": bytes.TrimSuffix([]byte(answer101), []byte("\n")),
	} {
		var f frames
		f.skip(sent)
		if f.between() {
			t.Errorf("%s: taken for the end of a frame", name)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(answer101+"\x82\x01x"), uint16(7))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		var whole, parts frames
		whole.skip(b)
		at := min(int(cut), len(b))
		parts.skip(b[:at])
		parts.skip(b[at:])
		if whole != parts {
			t.Errorf("cut at %d: got %+v, want %+v", at, parts, whole)
		}
	})
}
