package x11

import (
	"errors"
	"fmt"

	"penstock.dev/penstock/internal/media"
)

const (
	randrSetScreenSize      = 7
	randrCreateMode         = 16
	randrDestroyMode        = 17
	randrAddOutputMode      = 18
	randrDeleteOutputMode   = 19
	randrSetCrtcConfig      = 21
	randrResourcesCurrent   = 25
	randrSetMonitor         = 43
	randrDeleteMonitor      = 44
	rotateNormal            = 1
	refreshHertz            = 60
	millimetresPerInch      = 25.4
	baseDPI                 = 96 // at a scale of 100 percent
	randrSuccess            = 0
	blankColumns, blankRows = 160, 30
)

// Resize gives the screen one monitor of exactly this size at 60 Hz, and keeps the desktop's scale.
func (x *Screen) Resize(size media.Size) error {
	return x.Arrange(media.SingleMonitor(size, max(x.layout.Scale, media.DefaultScale)))
}

// Arrange gives the screen monitors of exactly these sizes and the desktop this scale. Applications see an
// ordinary change of resolution: the sizes in mm, the resource Xft.dpi and the XSETTINGS follow the scale.
func (x *Screen) Arrange(layout media.Layout) error {
	if layout != layout.Fit(x.max) {
		return fmt.Errorf("resize to %v at %d %%: screens have 64x64 to %v pixels and 75 to 500 %%", layout.Size(), layout.Scale, x.max)
	}
	if layout == x.layout && layout.Size() == x.Size() {
		return nil
	}
	size := layout.Size()
	if err := x.resize(layout); err != nil {
		return fmt.Errorf("resize to %v: %w", size, err)
	}
	scaled := layout.Scale != x.layout.Scale
	x.layout = layout
	x.setSize(size)
	if !scaled {
		return nil
	}
	if err := x.publishScale(layout.Scale); err != nil {
		return fmt.Errorf("scale the desktop to %d %%: %w", layout.Scale, err)
	}
	return nil
}

func (x *Screen) resize(layout media.Layout) error {
	size := layout.Size()
	crtc, output, err := x.firstOutput()
	if err != nil {
		return err
	}
	mode := x.mode
	if mode == 0 || size != x.Size() {
		if mode, err = x.createMode(size); err != nil {
			return err
		}
		if err := x.c.check(finish(words(x.randr.request(randrAddOutputMode), output, mode))); err != nil {
			return errors.Join(err, x.c.check(finish(words(x.randr.request(randrDestroyMode), mode))))
		}
	}
	// Nobody may see the state between: a screen without an output, or monitors that are not on it.
	if err := x.c.post(1, []byte{opGrabServer, 0, 1, 0}); err != nil {
		return err
	}
	err = x.switchMode(crtc, output, mode, layout)
	if ungrab := x.c.check([]byte{opUngrabServer, 0, 1, 0}); ungrab != nil {
		return errors.Join(err, ungrab)
	}
	if mode == x.mode {
		return err
	}
	if err != nil {
		mode, x.mode = x.mode, mode // remove the mode that is not used
	}
	old := x.mode
	x.mode = mode
	if old == 0 {
		return err
	}
	return errors.Join(err,
		x.c.check(finish(words(x.randr.request(randrDeleteOutputMode), output, old))),
		x.c.check(finish(words(x.randr.request(randrDestroyMode), old))))
}

// millimetres is how long so many pixels are on a monitor of this scale.
func millimetres(pixels, scale int) uint32 {
	return uint32(float64(pixels)*millimetresPerInch*media.DefaultScale/float64(baseDPI*scale) + 0.5)
}

func (x *Screen) switchMode(crtc, output, mode uint32, layout media.Layout) error {
	size := layout.Size()
	if mode != x.mode {
		if err := x.setCrtc(crtc, 0); err != nil {
			return err
		}
	}
	if err := x.setMonitors(layout, output); err != nil { // first: window managers look when the size changes
		return err
	}
	req := words(x.randr.request(randrSetScreenSize), x.c.setup.root)
	req = halves(req, uint16(size.Width), uint16(size.Height))
	req = words(req, millimetres(size.Width, layout.Scale), millimetres(size.Height, layout.Scale))
	if err := x.c.check(finish(req)); err != nil {
		return err
	}
	if mode == x.mode {
		return nil
	}
	return x.setCrtc(crtc, mode, output)
}

// setMonitors tells RANDR which parts of the screen are monitors. The first has the output; without it the
// server would add the whole screen as one more.
func (x *Screen) setMonitors(layout media.Layout, output uint32) error {
	bounds := layout.Bounds()
	for i := range media.MaxMonitors {
		name, err := x.c.atom(fmt.Sprintf("Penstock-%d", i+1))
		if err != nil {
			return err
		}
		if i < x.monitors { // one that is there cannot be changed
			if err := x.c.check(finish(words(x.randr.request(randrDeleteMonitor), x.c.setup.root, name))); err != nil {
				return fmt.Errorf("remove monitor %d: %w", i+1, err)
			}
		}
		if i >= len(bounds) {
			continue
		}
		b := bounds[i]
		req := words(x.randr.request(randrSetMonitor), x.c.setup.root, name)
		req = append(req, boolByte(i == 0), 0)
		outputs := []uint32{output}[:1-min(i, 1)]
		req = halves(req, uint16(len(outputs)), uint16(b.Min.X), uint16(b.Min.Y), uint16(b.Dx()), uint16(b.Dy()))
		req = words(req, millimetres(b.Dx(), layout.Scale), millimetres(b.Dy(), layout.Scale))
		if err := x.c.check(finish(words(req, outputs...))); err != nil {
			return fmt.Errorf("set monitor %d: %w", i+1, err)
		}
	}
	x.monitors = len(bounds)
	return nil
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func (x *Screen) setCrtc(crtc, mode uint32, outputs ...uint32) error {
	req := words(x.randr.request(randrSetCrtcConfig), crtc, 0, 0)
	req = halves(req, 0, 0)
	req = words(req, mode)
	req = halves(req, rotateNormal, 0)
	reply, err := x.c.ask(finish(words(req, outputs...)))
	if err != nil {
		return err
	}
	if reply[1] != randrSuccess {
		return fmt.Errorf("server refused the mode with status %d", reply[1])
	}
	return nil
}

// firstOutput is the controller and the output that Xvfb has.
func (x *Screen) firstOutput() (crtc, output uint32, err error) {
	reply, err := x.c.ask(finish(words(x.randr.request(randrResourcesCurrent), x.c.setup.root)))
	if err != nil {
		return 0, 0, err
	}
	crtcs, outputs := int(le.Uint16(reply[16:])), int(le.Uint16(reply[18:]))
	if crtcs == 0 || outputs == 0 || len(reply) < 32+4*(crtcs+1) {
		return 0, 0, errors.New("server has no output")
	}
	return le.Uint32(reply[32:]), le.Uint32(reply[32+4*crtcs:]), nil
}

// createMode makes a mode with small blanks, as flat screens have, and a clock for 60 Hz.
func (x *Screen) createMode(size media.Size) (uint32, error) {
	name := size.String() + "_60" // unlike the one that the server started with
	columns, rows := size.Width+blankColumns, size.Height+blankRows
	req := words(x.randr.request(randrCreateMode), x.c.setup.root)
	req = words(req, 0)
	req = halves(req, uint16(size.Width), uint16(size.Height))
	req = words(req, uint32(columns*rows*refreshHertz))
	req = halves(req,
		uint16(size.Width+48), uint16(size.Width+80), uint16(columns), 0,
		uint16(size.Height+3), uint16(size.Height+8), uint16(rows), uint16(len(name)))
	req = words(req, 0)
	reply, err := x.c.ask(finish(append(req, name...)))
	if err != nil {
		return 0, err
	}
	return le.Uint32(reply[8:]), nil
}
