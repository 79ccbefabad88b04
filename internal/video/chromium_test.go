package video

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// stream is what the page decodes: the frames of one picture, coded, and the last of them as RGBX back.
type stream struct {
	Name   string         `json:"name"`
	Config map[string]any `json:"config"` // of VideoDecoder
	Frames []int          `json:"frames"` // bytes of each
	Width  int            `json:"width"`
	Height int            `json:"height"`

	data []byte
}

const decoderPage = `<!doctype html><title>decoder</title><script type="module">
const post = (path, body) => fetch(path, { method: "POST", body });
try {
  for (const [index, s] of (await (await fetch("/streams")).json()).entries()) {
    const data = new Uint8Array(await (await fetch("/data?stream=" + index)).arrayBuffer());
    const shown = [];
    let failed;
    const decoder = new VideoDecoder({ output: (frame) => shown.push(frame), error: (e) => { failed = e; } });
    decoder.configure({ ...s.config, optimizeForLatency: true, hardwareAcceleration: "prefer-software" });
    let at = 0;
    const counts = [];
    for (const [i, size] of s.frames.entries()) {
      decoder.decode(new EncodedVideoChunk({ type: i ? "delta" : "key", timestamp: i * 1000, data: data.subarray(at, at + size) }));
      at += size;
      // One in, one out: the frame is there although no later one has come.
      for (let waited = 0; shown.length <= i && !failed && waited < 10000; waited += 5) await new Promise((r) => setTimeout(r, 5));
      counts.push(shown.length);
    }
    if (failed) throw failed;
    const frame = shown.at(-1);
    if (!frame) throw new Error(s.name + ": no frame");
    const pixels = new Uint8Array(s.width * s.height * 4);
    await frame.copyTo(pixels, { format: "RGBX", rect: { x: 0, y: 0, width: s.width, height: s.height } });
    const { codedWidth, codedHeight, visibleRect, colorSpace } = frame;
    const about = { counts, coded: [codedWidth, codedHeight], visible: [visibleRect.width, visibleRect.height], color: colorSpace.toJSON() };
    await post("/pixels?stream=" + index + "&about=" + encodeURIComponent(JSON.stringify(about)), pixels);
    for (const f of shown) f.close();
    decoder.close();
  }
  await post("/done", "");
} catch (e) {
  await post("/done", String(e) || "failed");
}
</script>`

// about is what the page says of a decoded frame.
type about struct {
	Counts  []int          `json:"counts"` // of frames shown after each that was given
	Coded   [2]int         `json:"coded"`
	Visible [2]int         `json:"visible"`
	Color   map[string]any `json:"color"`
	pixels  []byte         // R G B X
}

// decodeInChromium returns what Chromium shows of each stream.
func decodeInChromium(t *testing.T, streams []stream) []about {
	t.Helper()
	path := os.Getenv("CHROMIUM")
	if path == "" {
		path = "/usr/bin/chromium"
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("Chromium is missing: run scripts/setup.sh test (%v)", err)
	}
	results := make([]about, len(streams))
	done := make(chan string, 1)
	var mu sync.Mutex
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, decoderPage) })
	mux.HandleFunc("GET /streams", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(streams) })
	index := func(r *http.Request) (i int) {
		_, _ = fmt.Sscan(r.URL.Query().Get("stream"), &i)
		return min(max(i, 0), len(streams)-1)
	}
	mux.HandleFunc("GET /data", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(streams[index(r)].data) })
	mux.HandleFunc("POST /pixels", func(_ http.ResponseWriter, r *http.Request) {
		var a about
		_ = json.Unmarshal([]byte(r.URL.Query().Get("about")), &a)
		a.pixels, _ = io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		results[index(r)] = a
	})
	mux.HandleFunc("POST /done", func(_ http.ResponseWriter, r *http.Request) {
		reason, _ := io.ReadAll(r.Body)
		select {
		case done <- string(reason):
		default:
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	browser := exec.CommandContext(ctx, path, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-extensions", "--user-data-dir="+t.TempDir(), server.URL)
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	browser.Cancel = func() error { return syscall.Kill(-browser.Process.Pid, syscall.SIGKILL) }
	browser.WaitDelay = 20 * time.Second
	var log strings.Builder
	browser.Stderr = &log
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = browser.Wait(); close(ended) }()
	var problem string
	select {
	case problem = <-done:
	case <-ended:
		problem = "the browser ended: " + log.String()
	case <-ctx.Done():
		problem = "no answer in time"
	}
	cancel()
	<-ended
	if problem != "" {
		t.Fatalf("Chromium: %s", problem)
	}
	mu.Lock()
	defer mu.Unlock()
	return results
}

// channels compares the picture with what was shown, in dB for red, green and blue.
func channels(img Image, rgbx []byte) [3]float64 {
	var sum [3]float64
	for y := range img.Height {
		for x := range img.Width {
			for c := range 3 {
				d := float64(img.Pix[y*img.Stride+4*x+2-c]) - float64(rgbx[(y*img.Width+x)*4+c])
				sum[c] += d * d
			}
		}
	}
	for c := range sum {
		sum[c] = 10 * math.Log10(255*255*float64(img.Width*img.Height)/max(sum[c], 1e-3))
	}
	return sum
}

// colours is a picture of large areas in strong colours, where a wrong matrix, range or curve shows at once, with ramps of grey.
func colours(width, height int) Image {
	img := Image{Pix: make([]byte, 4*width*height), Stride: 4 * width, Width: width, Height: height}
	patches := [][3]float64{
		{255, 0, 0},
		{0, 255, 0},
		{0, 0, 255},
		{255, 255, 0},
		{0, 255, 255},
		{255, 0, 255},
		{255, 255, 255},
		{0, 0, 0},
		{128, 128, 128},
		{200, 40, 40},
		{40, 160, 40},
		{30, 60, 180},
		{230, 140, 20},
		{90, 20, 120},
		{250, 200, 170},
		{60, 60, 60},
	}
	// Patches begin at even places, or their edges would be all that a small picture shows.
	pw, ph := max(width/4&^1, 2), max(height/4&^1, 2)
	for y := range height {
		for x := range width {
			p := patches[min(y/ph, 3)*4+min(x/pw, 3)]
			// A slow ramp within each patch, so that curves show too.
			k := 0.6 + 0.4*float64(x%pw)/float64(pw)
			copy(img.Pix[y*img.Stride+4*x:], []byte{byte(p[2] * k), byte(p[1] * k), byte(p[0] * k), 0})
		}
	}
	return img
}

// TestColoursInChromium codes strong colours and reads the pixels that Chromium shows: they must be those of the screen,
// in each channel, whatever the size. A wrong matrix or range would fail the test: it asks for some, and they do.
func TestColoursInChromium(t *testing.T) {
	if !whole() {
		t.Skip("needs PENSTOCK_E2E=1: it starts Chromium (make e2e)")
	}
	l := libraries(t, H264, VP8)
	srgb := func(matrix string, full bool) map[string]any {
		return map[string]any{"primaries": "bt709", "transfer": "iec61966-2-1", "matrix": matrix, "fullRange": full}
	}
	type wanted struct {
		img   Image
		wrong bool
	}
	var streams []stream
	var want []wanted
	for _, codec := range []Codec{H264, VP8} {
		for _, size := range [][2]int{{64, 48}, {101, 75}, {640, 360}, {1920, 1080}} {
			img := colours(size[0], size[1])
			e, err := l.NewEncoder(Config{Codec: codec, Width: size[0], Height: size[1]})
			if err != nil {
				t.Fatal(err)
			}
			s := stream{Width: size[0], Height: size[1]}
			for range 3 {
				before := len(s.data)
				if s.data, _, err = e.Encode(s.data, img, 4, false); err != nil {
					t.Fatal(err)
				}
				s.Frames = append(s.Frames, len(s.data)-before)
			}
			_ = e.Close()
			name := "avc1." + strings.ToUpper(fmt.Sprintf("%02x%02x%02x", s.data[5], s.data[6], s.data[7]))
			if codec == VP8 {
				name = "vp8"
			}
			add := func(what string, wrong bool, color map[string]any, change func([]byte) []byte) {
				s := s
				s.Name = fmt.Sprintf("%s %dx%d %s", codec, size[0], size[1], what)
				s.Config = map[string]any{"codec": name}
				if color != nil {
					s.Config["colorSpace"] = color
				}
				if change != nil {
					s.data = change(s.data)
				}
				streams, want = append(streams, s), append(want, wanted{img, wrong})
			}
			if codec == H264 {
				add("as the stream says", false, nil, nil)
				add("as BT.709", true, nil, func(data []byte) []byte { return withColours(t, data, 1, false) })
				add("as full range", true, nil, func(data []byte) []byte { return withColours(t, data, 6, true) })
			} else {
				// A viewer has to say them, as the bitstream does not: Chromium takes BT.709 for granted.
				add("as BT.601", false, srgb("smpte170m", false), nil)
				add("as BT.709", true, srgb("bt709", false), nil)
				add("as full range", true, srgb("smpte170m", true), nil)
			}
		}
	}
	for i, a := range decodeInChromium(t, streams) {
		s, img := streams[i], want[i].img
		if len(a.pixels) != 4*img.Width*img.Height {
			t.Errorf("%s: %d bytes came back", s.Name, len(a.pixels))
			continue
		}
		db := channels(img, a.pixels)
		t.Logf("%s: %s, red %.1f, green %.1f, blue %.1f dB, visible %v, %v", s.Name, s.Config["codec"], db[0], db[1], db[2], a.Visible, a.Color)
		good := db[0] > colourLimit && db[1] > colourLimit && db[2] > colourLimit
		if good == want[i].wrong {
			t.Errorf("%s: red %.1f, green %.1f, blue %.1f dB; the limit is %v", s.Name, db[0], db[1], db[2], colourLimit)
		}
		if fmt.Sprint(a.Counts) != "[1 2 3]" {
			t.Errorf("%s: frames shown after each given: %v, want one for one", s.Name, a.Counts)
		}
		width, height := Config{Width: img.Width, Height: img.Height}.CodedSize()
		if a.Visible != [2]int{width, height} {
			t.Errorf("%s: %v pixels are shown, want %dx%d", s.Name, a.Visible, width, height)
		}
	}
}

// colourLimit is in dB.
const colourLimit = 36.0
