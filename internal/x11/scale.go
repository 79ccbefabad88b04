package x11

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"

	"penstock.dev/penstock/internal/media"
)

// Atoms and types that every X server has.
const (
	atomResourceManager = 23
	atomString          = 31
)

// cursorSize is the edge of cursors at 100 percent, in pixels.
const cursorSize = 24

// settings is our XSETTINGS manager: a window that owns the selection _XSETTINGS_S0 and carries the settings
// as a property. Programs of GTK and others follow it while they run.
type settings struct {
	window uint32
	serial uint32
	lost   atomic.Bool // another manager took over; the connection's reader says so
}

// publishScale tells applications the desktop's scale: those that start read the resources of the root window,
// those that run follow XSETTINGS.
func (x *Screen) publishScale(scale int) error {
	if err := x.setResources(scale); err != nil {
		return err
	}
	return x.setSettings(scale)
}

// resources are the lines of RESOURCE_MANAGER for a scale. A terminal's bitmap font does not grow, so from
// 125 percent on it uses one that does.
func resources(scale int) []string {
	lines := []string{
		fmt.Sprintf("Xft.dpi:\t%d", dpi(scale)),
		fmt.Sprintf("Xcursor.size:\t%d", cursorPixels(scale)),
	}
	if scale >= 125 {
		lines = append(lines, "XTerm*faceName:\tMonospace", "XTerm*faceSize:\t9")
	}
	return lines
}

func dpi(scale int) int { return (baseDPI*scale + media.DefaultScale/2) / media.DefaultScale }

func cursorPixels(scale int) int {
	return (cursorSize*scale + media.DefaultScale/2) / media.DefaultScale
}

// mergeResources replaces our lines among those that are there; lines of others stay.
func mergeResources(old string, scale int) string {
	ours := map[string]bool{"Xft.dpi": true, "Xcursor.size": true, "XTerm*faceName": true, "XTerm*faceSize": true}
	var lines []string
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\n")
		if name, _, ok := strings.Cut(line, ":"); line != "" && (!ok || !ours[strings.TrimSpace(name)]) {
			lines = append(lines, line)
		}
	}
	return strings.Join(append(lines, resources(scale)...), "\n") + "\n"
}

// maxResources bounds what is read of the root's resources, in bytes.
const maxResources = 64 << 10

func (x *Screen) setResources(scale int) error {
	req := words([]byte{opGetProperty, 0, 6, 0}, x.c.setup.root, atomResourceManager, atomString, 0, maxResources/4)
	reply, err := x.c.ask(req)
	if err != nil {
		return fmt.Errorf("read the screen's resources: %w", err)
	}
	n := min(int(le.Uint32(reply[16:])), len(reply)-32)
	if reply[1] != 8 {
		n = 0 // there are none
	}
	text := mergeResources(string(bytes.TrimRight(reply[32:32+n], "\x00")), scale)
	if err := x.setProperty(x.c.setup.root, atomResourceManager, atomString, []byte(text)); err != nil {
		return fmt.Errorf("write the screen's resources: %w", err)
	}
	return nil
}

func (x *Screen) setProperty(window, name, kind uint32, value []byte) error {
	const replace, format8 = 0, 8
	req := words([]byte{opChangeProperty, replace, 0, 0}, window, name, kind, format8, uint32(len(value)))
	return x.c.check(finish(append(req, value...)))
}

// setSettings publishes the scale by XSETTINGS, unless another manager runs in the session.
func (x *Screen) setSettings(scale int) error {
	selection, err := x.c.atom("_XSETTINGS_S0")
	if err != nil {
		return err
	}
	property, err := x.c.atom("_XSETTINGS_SETTINGS")
	if err != nil {
		return err
	}
	owner, err := x.selectionOwner(selection)
	if err != nil {
		return err
	}
	s := &x.settings
	if owner != 0 && (owner != s.window || s.lost.Load()) {
		x.log.Info("desktop's scale was left to the session's own settings manager", "scale", scale)
		return nil
	}
	if s.window == 0 {
		if s.window, err = x.hiddenWindow(); err != nil {
			return fmt.Errorf("become settings manager: %w", err)
		}
	}
	s.serial++
	if err := x.setProperty(s.window, property, property, encodeSettings(s.serial, scale)); err != nil {
		return fmt.Errorf("publish settings: %w", err)
	}
	if owner != 0 {
		return nil // those who follow us see the property change
	}
	s.lost.Store(false)
	if err := x.c.check(words([]byte{opSetSelectionOwner, 0, 4, 0}, s.window, selection, 0)); err != nil {
		return fmt.Errorf("become settings manager: %w", err)
	}
	return x.announceManager(selection)
}

func (x *Screen) selectionOwner(selection uint32) (uint32, error) {
	reply, err := x.c.ask(words([]byte{opGetSelectionOwner, 0, 2, 0}, selection))
	if err != nil {
		return 0, fmt.Errorf("look for a settings manager: %w", err)
	}
	return le.Uint32(reply[8:]), nil
}

func (x *Screen) hiddenWindow() (uint32, error) {
	const inputOnly, overrideRedirect = 2, 1 << 9
	id := x.c.newID()
	req := words([]byte{opCreateWindow, 0, 9, 0}, id, x.c.setup.root)
	req = halves(req, 0xffff, 0xffff, 1, 1, 0, inputOnly) // at -1,-1
	return id, x.c.check(words(req, 0, overrideRedirect, 1))
}

// announceManager tells programs that already run that there is a settings manager now (ICCCM 2.8).
func (x *Screen) announceManager(selection uint32) error {
	manager, err := x.c.atom("MANAGER")
	if err != nil {
		return err
	}
	event := words([]byte{eventClientMessage, 32, 0, 0}, x.c.setup.root, manager, 0, selection, x.settings.window, 0, 0)
	req := words([]byte{opSendEvent, 0, 0, 0}, x.c.setup.root, maskStructure)
	if err := x.c.check(finish(append(req, event...))); err != nil {
		return fmt.Errorf("announce the settings manager: %w", err)
	}
	return nil
}

// encodeSettings is the property of XSETTINGS 0.5: u8 byte order, 3 unused, u32 serial, u32 count, then for each
// setting u8 type (0: integer), 1 unused, u16 length and the name, padded to 4, u32 serial of its last change, i32 value.
//
// GTK multiplies everything by the window's factor, which is whole, so the rest is in the unscaled resolution.
// Others use Xft/DPI alone. Cursors are in physical pixels.
func encodeSettings(serial uint32, scale int) []byte {
	factor := max(1, scale/media.DefaultScale)
	values := []struct {
		name  string
		value int
	}{
		{"Gdk/UnscaledDPI", dpi(scale) * 1024 / factor},
		{"Gdk/WindowScalingFactor", factor},
		{"Gtk/CursorThemeSize", cursorPixels(scale)},
		{"Xft/DPI", dpi(scale) * 1024},
	}
	b := words([]byte{0, 0, 0, 0}, serial, uint32(len(values)))
	for _, v := range values {
		b = halves(append(b, 0, 0), uint16(len(v.name)))
		b = pad(append(b, v.name...))
		b = words(b, serial, uint32(v.value))
	}
	return b
}
