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
	rotateNormal            = 1
	refreshHertz            = 60
	millimetresPerInch      = 25.4
	dpi                     = 96
	randrSuccess            = 0
	blankColumns, blankRows = 160, 30
)

// Resize gives the screen a mode of exactly this size at 60 Hz. Applications see an ordinary change of
// resolution.
func (x *Screen) Resize(size media.Size) error {
	if size != size.Fit(x.max) {
		return fmt.Errorf("resize to %v: screens have 64x64 to %v pixels", size, x.max)
	}
	if size == x.Size() && x.mode != 0 {
		return nil
	}
	if err := x.resize(size); err != nil {
		return fmt.Errorf("resize to %v: %w", size, err)
	}
	x.setSize(size)
	return nil
}

func (x *Screen) resize(size media.Size) error {
	crtc, output, err := x.firstOutput()
	if err != nil {
		return err
	}
	mode, err := x.createMode(size)
	if err != nil {
		return err
	}
	if err := x.c.check(finish(words(x.randr.request(randrAddOutputMode), output, mode))); err != nil {
		return errors.Join(err, x.c.check(finish(words(x.randr.request(randrDestroyMode), mode))))
	}
	// Nobody may see the state between: a screen without an output.
	if err := x.c.post(1, []byte{opGrabServer, 0, 1, 0}); err != nil {
		return err
	}
	err = x.switchMode(crtc, output, mode, size)
	if ungrab := x.c.check([]byte{opUngrabServer, 0, 1, 0}); ungrab != nil {
		return errors.Join(err, ungrab)
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

func (x *Screen) switchMode(crtc, output, mode uint32, size media.Size) error {
	if err := x.setCrtc(crtc, 0); err != nil {
		return err
	}
	mm := func(pixels int) uint32 { return uint32(float64(pixels)*millimetresPerInch/dpi + 0.5) }
	req := words(x.randr.request(randrSetScreenSize), x.c.setup.root)
	req = halves(req, uint16(size.Width), uint16(size.Height))
	if err := x.c.check(finish(words(req, mm(size.Width), mm(size.Height)))); err != nil {
		return err
	}
	return x.setCrtc(crtc, mode, output)
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
