package x11

import (
	"errors"
	"fmt"
	"image"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/media"
)

// Screen is the picture of one display: damage, capture, cursor and size. Damage, CursorChanged and Done
// may be used by any goroutine; Capture and Resize exclude each other and must not overlap with the use of
// captured views.
type Screen struct {
	c      *conn
	damage extension
	fixes  extension
	shm    extension
	randr  extension
	max    media.Size
	log    *slog.Logger

	damageID  uint32
	damaged   chan struct{} // holds a token when damage or a new size waits
	cursor    chan struct{} // holds a token when the cursor's shape changed
	mu        sync.Mutex    // guards size, region and, until the screen is open, damage and fixes
	size      media.Size
	region    media.Region
	clusters  []image.Rectangle
	views     []media.View
	calls     []*call
	request   []byte
	segment   segment
	useImages bool // no shared memory: fetch pixels in replies
	mode      uint32
	layout    media.Layout // what Arrange made; zero before
	monitors  int          // that RANDR knows from us
	settings  settings
}

// segment is shared memory that the X server draws captures into.
type segment struct {
	id  uint32 // X resource; 0 for none
	mem []byte
}

// OpenScreen connects to the server's display for capture.
func (s *Server) OpenScreen() (*Screen, error) {
	x := &Screen{
		max: s.maxSize, log: s.log,
		damaged: make(chan struct{}, 1), cursor: make(chan struct{}, 1),
	}
	c, err := dial(s.display, s.cookie, x.event, func(e *xError) {
		s.log.Debug("X request was refused", "error", e)
	})
	if err != nil {
		return nil, err
	}
	x.c = c
	if err := x.open(); err != nil {
		c.close()
		return nil, fmt.Errorf("open screen of display :%d: %w", s.display, err)
	}
	return x, nil
}

const (
	damageCreate           = 1
	damageSubtract         = 3
	damageDeltaRectangles  = 1
	fixesSelectCursorInput = 3
	fixesGetCursorImage    = 4
	shmAttach              = 1
	shmDetach              = 2
	shmGetImage            = 4
	zPixmap                = 2
	allPlanes              = 0xffffffff
)

func (x *Screen) open() error {
	s := &x.c.setup
	if s.rootDepth != 24 || s.imageOrder != 0 {
		return fmt.Errorf("screen has depth %d and byte order %d; want 24 and 0", s.rootDepth, s.imageOrder)
	}
	for _, e := range []struct {
		name         string
		ext          *extension
		major, minor uint32
	}{
		{"XFIXES", &x.fixes, 5, 0},
		{"DAMAGE", &x.damage, 1, 1},
		{"RANDR", &x.randr, 1, 5},
	} {
		ext, ok, err := x.c.extension(e.name)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("server has no extension %s", e.name)
		}
		x.mu.Lock() // the reader compares events with them already
		*e.ext = ext
		x.mu.Unlock()
		if err := x.c.version(ext, e.major, e.minor); err != nil {
			return fmt.Errorf("agree on a version of %s: %w", e.name, err)
		}
	}
	var ok bool
	var err error
	if x.shm, ok, err = x.c.extension("MIT-SHM"); err != nil {
		return err
	} else if !ok {
		x.log.Warn("X server has no shared memory; capture is slow")
		x.useImages = true
	}
	if err := grabProof(x.c); err != nil {
		return err
	}
	x.setSize(media.Size{Width: int(s.width), Height: int(s.height)})
	if err := x.c.check(words([]byte{opChangeWindowAttributes, 0, 4, 0}, s.root, 1<<11, maskStructure)); err != nil {
		return fmt.Errorf("follow the screen's size: %w", err)
	}
	x.damageID = x.c.newID()
	if err := x.c.check(finish(append(words(x.damage.request(damageCreate), x.damageID, s.root), damageDeltaRectangles))); err != nil {
		return fmt.Errorf("follow the screen's damage: %w", err)
	}
	const displayCursorNotify = 1
	if err := x.c.check(finish(words(x.fixes.request(fixesSelectCursorInput), s.root, displayCursorNotify))); err != nil {
		return fmt.Errorf("follow the cursor: %w", err)
	}
	signal(x.cursor)
	return nil
}

// grabProof makes the connection's requests pass while another client holds the server.
func grabProof(c *conn) error {
	xtest, ok, err := c.extension("XTEST")
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("server has no extension XTEST")
	}
	const grabControl = 3
	return c.check(finish(append(xtest.request(grabControl), 1)))
}

// signal leaves a token in a channel of capacity 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// event notes damage, sizes and cursors; it runs on the connection's reader.
func (x *Screen) event(ev []byte) {
	x.mu.Lock()
	damage, cursor := x.damage.firstEvent, x.fixes.firstEvent+1
	x.mu.Unlock()
	switch ev[0] & 0x7f {
	case damage:
		px, py := int(int16(le.Uint16(ev[16:]))), int(int16(le.Uint16(ev[18:])))
		w, h := int(le.Uint16(ev[20:])), int(le.Uint16(ev[22:]))
		x.mu.Lock()
		x.region.Add(image.Rect(px, py, px+w, py+h))
		x.mu.Unlock()
		signal(x.damaged)
	case cursor:
		signal(x.cursor)
	case eventSelectionClear:
		x.settings.lost.Store(true)
	case eventConfigure:
		if le.Uint32(ev[8:]) == x.c.setup.root {
			x.setSize(media.Size{Width: int(le.Uint16(ev[20:])), Height: int(le.Uint16(ev[22:]))})
		}
	}
}

func (x *Screen) setSize(size media.Size) {
	x.mu.Lock()
	if x.size != size {
		x.size = size
		x.region.Reset()
		x.region.Add(size.Bounds())
	}
	x.mu.Unlock()
	signal(x.damaged)
}

// Close ends the connection. Views of the last capture must not be used any more.
func (x *Screen) Close() {
	x.c.close()
	x.segment.release()
}

// Done is closed when the connection to the X server has ended.
func (x *Screen) Done() <-chan struct{} { return x.c.finished }

// Size is the screen's present size.
func (x *Screen) Size() media.Size {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.size
}

// MaxSize is the largest size that Resize can make.
func (x *Screen) MaxSize() media.Size { return x.max }

// Damaged holds a token when something was drawn since the last TakeDamage, or the size changed.
func (x *Screen) Damaged() <-chan struct{} { return x.damaged }

// TakeDamage adds what was drawn since the last call to region. What is drawn from now on is damage again.
func (x *Screen) TakeDamage(region *media.Region) error {
	x.mu.Lock()
	empty := x.region.Empty()
	region.AddRegion(&x.region)
	x.region.Reset()
	x.mu.Unlock()
	if empty {
		return nil
	}
	// The server reports a place again only after this. A capture on this connection comes after it, so
	// it sees all that was drawn before.
	return x.c.post(1, finish(words(x.damage.request(damageSubtract), x.damageID, 0, 0)))
}

// errResized is a capture of a screen that has just changed its size.
var errResized = errors.New("screen changed its size")

// Capture returns the pixels of the region, cut to size, in at most four views that are valid until the
// next Capture. It fails when the screen does not have that size any more; the damage then holds the whole
// new screen.
func (x *Screen) Capture(region *media.Region, size media.Size) ([]media.View, error) {
	x.clusters = region.Clusters(x.clusters[:0], size.Bounds())
	x.views = x.views[:0]
	if len(x.clusters) == 0 {
		return nil, nil
	}
	total := 0
	for _, r := range x.clusters {
		total += r.Dx() * r.Dy() * 4
	}
	if !x.useImages && len(x.segment.mem) < total {
		if err := x.attach(max(total, size.Width*size.Height*4)); err != nil {
			x.log.Warn("shared memory could not be used; capture is slow", "error", err)
			x.useImages = true
		}
	}
	var err error
	if x.useImages {
		err = x.captureImages()
	} else {
		err = x.captureShared()
	}
	if err != nil {
		var xe *xError
		if errors.As(err, &xe) && x.Size() != size {
			return nil, errResized
		}
		return nil, fmt.Errorf("capture: %w", err)
	}
	return x.views, nil
}

// captureShared asks for all clusters in one write and waits for the last answer.
func (x *Screen) captureShared() error {
	x.calls = x.calls[:0]
	offset := 0
	for _, r := range x.clusters {
		n := r.Dx() * r.Dy() * 4
		x.request = append(x.request[:0], x.shm.opcode, shmGetImage, 8, 0)
		x.request = words(x.request, x.c.setup.root)
		x.request = halves(x.request, uint16(r.Min.X), uint16(r.Min.Y), uint16(r.Dx()), uint16(r.Dy()))
		x.request = words(x.request, allPlanes, zPixmap, x.segment.id, uint32(offset))
		k, err := x.c.start(1, x.request)
		if err != nil {
			return err
		}
		x.calls = append(x.calls, k)
		x.views = append(x.views, media.View{Rect: r, Pix: x.segment.mem[offset : offset+n : offset+n]})
		offset += n
	}
	var failed error
	for _, k := range x.calls {
		if _, err := k.wait(); err != nil {
			failed = err
		}
	}
	return failed
}

func (x *Screen) captureImages() error {
	for _, r := range x.clusters {
		req := words([]byte{opGetImage, zPixmap, 5, 0}, x.c.setup.root)
		req = halves(req, uint16(r.Min.X), uint16(r.Min.Y), uint16(r.Dx()), uint16(r.Dy()))
		reply, err := x.c.ask(words(req, allPlanes))
		if err != nil {
			return err
		}
		n := r.Dx() * r.Dy() * 4
		if len(reply) < 32+n {
			return fmt.Errorf("server sent %d bytes for %v", len(reply)-32, r)
		}
		x.views = append(x.views, media.View{Rect: r, Pix: reply[32 : 32+n]})
	}
	return nil
}

// attach replaces the shared memory by one of at least n bytes. It is marked for removal at once, so
// nothing is left when both processes have ended, however they end.
func (x *Screen) attach(n int) error {
	if x.segment.id != 0 {
		if err := x.c.check(finish(words(x.shm.request(shmDetach), x.segment.id))); err != nil {
			return fmt.Errorf("detach shared memory: %w", err)
		}
		x.segment.release()
	}
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, n, unix.IPC_CREAT|0o600)
	if err != nil {
		return fmt.Errorf("make shared memory of %d bytes: %w", n, err)
	}
	defer func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) }()
	mem, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return fmt.Errorf("attach shared memory: %w", err)
	}
	seg := x.c.newID()
	if err := x.c.check(finish(words(x.shm.request(shmAttach), seg, uint32(id), 0))); err != nil {
		_ = unix.SysvShmDetach(mem)
		return fmt.Errorf("attach shared memory to the X server: %w", err)
	}
	x.segment = segment{id: seg, mem: mem}
	return nil
}

func (s *segment) release() {
	if s.mem != nil {
		_ = unix.SysvShmDetach(s.mem)
	}
	*s = segment{}
}

// CursorChanged holds a token when the cursor has a new shape since the last Cursor.
func (x *Screen) CursorChanged() <-chan struct{} { return x.cursor }

// Cursor is the present shape of the cursor.
func (x *Screen) Cursor() (media.Cursor, error) {
	reply, err := x.c.ask(finish(x.fixes.request(fixesGetCursorImage)))
	if err != nil {
		return media.Cursor{}, fmt.Errorf("get the cursor: %w", err)
	}
	w, h := int(le.Uint16(reply[12:])), int(le.Uint16(reply[14:]))
	if len(reply) < 32+w*h*4 {
		return media.Cursor{}, fmt.Errorf("get the cursor: %d×%d pixels in %d bytes", w, h, len(reply)-32)
	}
	c := media.Cursor{
		Serial: le.Uint32(reply[20:]),
		Size:   media.Size{Width: w, Height: h},
		Hot:    image.Pt(int(le.Uint16(reply[16:])), int(le.Uint16(reply[18:]))),
		RGBA:   make([]byte, 0, w*h*4),
	}
	visible := false
	for i := range w * h {
		p := le.Uint32(reply[32+4*i:])
		a := p >> 24
		visible = visible || a != 0
		c.RGBA = append(c.RGBA, straight(p>>16, a), straight(p>>8, a), straight(p, a), byte(a))
	}
	if !visible {
		return media.Cursor{Serial: c.Serial}, nil
	}
	return c, nil
}

// straight undoes the multiplication of a colour by its alpha.
func straight(v, a uint32) byte {
	if v &= 0xff; a == 0 || a == 255 {
		return byte(v)
	}
	return byte(min((v*255+a/2)/a, 255))
}
