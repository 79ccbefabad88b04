package x11

import "fmt"

// program is a client of the server: its number there, and its process. Numbers are used again.
type program struct{ client, pid uint32 }

// The X-Resource extension (X Resource Extension: Protocol Specification, 1.2).
const (
	resQueryVersion   = 0
	resQueryClientIDs = 4
	resLocalPID       = 1 << 1
)

// openResource turns the extension on; the zero extension when the server lacks it.
func openResource(c *conn) (extension, error) {
	e, ok, err := c.extension("X-Resource")
	if err != nil || !ok {
		return extension{}, err
	}
	if _, err := c.ask(finish(append(e.request(resQueryVersion), 1, 2, 0, 0))); err != nil {
		return extension{}, fmt.Errorf("use the resource extension: %w", err)
	}
	return e, nil
}

// focused is the program that has the keys; false when there is none, or none that can be told.
func (in *Input) focused() (program, bool) {
	const pointerRoot = 1
	reply, err := in.c.ask([]byte{opGetInputFocus, 0, 1, 0})
	if err != nil {
		return program{}, false
	}
	window := le.Uint32(reply[8:])
	if window <= pointerRoot {
		return program{}, false
	}
	p := program{client: window &^ in.c.setup.idMask}
	if in.res.opcode == 0 {
		return p, true
	}
	reply, err = in.c.ask(finish(words(in.res.request(resQueryClientIDs), 1, window, resLocalPID)))
	// Header with u32 how many at 8; of each: u32 client, mask, bytes of the value, value. None for programs elsewhere.
	if err == nil && len(reply) >= 48 && le.Uint32(reply[8:]) > 0 && le.Uint32(reply[40:]) == 4 {
		p.pid = le.Uint32(reply[44:])
	}
	return p, true
}
