package transport_test

import (
	"image"
	"sync"
	"testing"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"penstock.dev/penstock/internal/wire/channel"
)

// bands is an X client that draws frames in several requests, as toolkits without a back buffer do.
type bands struct {
	conn   *xgb.Conn
	window xproto.Window
	paint  xproto.Gcontext

	mu     sync.Mutex
	prompt map[uint32]bool // frames that were drawn without a pause
}

const (
	bandCount  = 8
	bandHeight = 60
	bandWidth  = 640
)

func newBands(t *testing.T, r *rig) *bands {
	t.Helper()
	// xgb finds the cookie by the environment alone.
	t.Setenv("XAUTHORITY", r.server.Xauthority())
	conn, err := xgb.NewConnDisplay(r.server.Display())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	b := &bands{conn: conn, prompt: map[uint32]bool{}}
	screen := xproto.Setup(conn).DefaultScreen(conn)
	if b.window, err = xproto.NewWindowId(conn); err != nil {
		t.Fatal(err)
	}
	if b.paint, err = xproto.NewGcontextId(conn); err != nil {
		t.Fatal(err)
	}
	xproto.CreateWindow(conn, screen.RootDepth, b.window, screen.Root, 0, 0, bandWidth, bandCount*bandHeight, 0,
		xproto.WindowClassInputOutput, screen.RootVisual, xproto.CwBackPixel|xproto.CwOverrideRedirect, []uint32{0, 1})
	xproto.CreateGC(conn, b.paint, xproto.Drawable(b.window), 0, nil)
	xproto.MapWindow(conn, b.window)
	conn.Sync()
	return b
}

// draw draws one frame, whose number is its colour, band by band, and waits for the server after each.
func (b *bands) draw(n uint32) {
	prompt := true
	begun := time.Now()
	last := begun
	for i := range bandCount {
		xproto.ChangeGC(b.conn, b.paint, xproto.GcForeground, []uint32{n})
		xproto.PolyFillRectangle(b.conn, xproto.Drawable(b.window), b.paint,
			[]xproto.Rectangle{{Y: int16(i * bandHeight), Width: bandWidth, Height: bandHeight}})
		b.conn.Sync()
		// The server drew this band and the one before it within now and last: no longer apart than the agent waits.
		prompt = prompt && time.Since(last) < 900*time.Microsecond
		last = time.Now()
	}
	b.mu.Lock()
	b.prompt[n] = prompt && last.Sub(begun) < 2500*time.Microsecond
	b.mu.Unlock()
}

// A frame that is drawn in several requests comes whole when it is done within 3 ms.
func TestFramesAreWhole(t *testing.T) {
	r := newRig(t)
	v := r.join(t, channel.Hello{Width: bandWidth, Height: bandCount * bandHeight})
	client := newBands(t, r)
	const first, frames = 0x101010, 150
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := range uint32(frames) {
			client.draw(first + n)
			<-tick.C
		}
	}()
	whole, torn, tornPrompt := map[uint32]bool{}, 0, 0
	v.until(t, "the last frame", func(p *image.NRGBA) bool {
		var seen [bandCount]uint32
		newest, same := uint32(0), true
		for i := range seen {
			at := p.PixOffset(bandWidth/2, i*bandHeight+bandHeight/2)
			seen[i] = uint32(p.Pix[at])<<16 | uint32(p.Pix[at+1])<<8 | uint32(p.Pix[at+2])
			same = same && seen[i] == seen[0]
			newest = max(newest, seen[i])
		}
		switch {
		case newest < first+5 || newest >= first+frames: // what moves is not known yet; or no frame of ours
		case same:
			whole[newest] = true
		default:
			client.wait(newest)
			torn++
			if client.wasPrompt(newest) {
				tornPrompt++
			}
		}
		return same && newest == first+frames-1
	})
	<-done
	eligible := 0
	for n, prompt := range client.prompt {
		if prompt && n >= first+5 {
			eligible++
		}
	}
	t.Logf("%d frames came whole, %d pictures were torn; %d of %d frames were drawn without a pause, %d of the torn ones among them",
		len(whole), torn, eligible, frames, tornPrompt)
	// The agent may be kept from looking by whatever else the machine does; its rule is tested in virtual time.
	if tornPrompt*10 > eligible {
		t.Errorf("%d pictures were torn although their frame was drawn without a pause", tornPrompt)
	}
}

// wait waits until the frame is drawn.
func (b *bands) wait(n uint32) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		b.mu.Lock()
		_, ok := b.prompt[n]
		b.mu.Unlock()
		if ok {
			return
		}
	}
}

func (b *bands) wasPrompt(n uint32) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.prompt[n]
}
