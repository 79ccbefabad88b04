package channel

// TileSize is the edge of a tile in pixels; tiles at the right and bottom edges of the screen are cut.
const TileSize = 64

// Codings of a tile record: u8 column, u8 row, u8 coding, body. Codings 1, 2, 4 and 8 are the bits of a
// palette index: u8 colours − 1, colours × (R, G, B), rows of ⌈width · bits / 8⌉ bytes with the leftmost
// pixel in the lowest bits.
const (
	TileRaw   = 0  // width · height × (R, G, B)
	TileSolid = 16 // R, G, B
)

// DrawTiles draws the tile records of one tiles section, already decompressed, on picture: width × height
// pixels of R, G, B, A. It stops at the first fault; what was drawn until then stays. It does not allocate
// unless a record is at fault.
func DrawTiles(raw []byte, picture []byte, width, height int) error {
	if len(picture) != width*height*4 {
		return &Error{Type: TypeUpdate, Reason: "picture and screen differ in size"}
	}
	r := reader{rest: raw}
	for len(r.rest) > 0 {
		if drawTile(&r, picture, width, height); r.fault != "" {
			return &Error{Type: TypeUpdate, Reason: "tile: " + r.fault}
		}
	}
	return nil
}

func drawTile(r *reader, picture []byte, width, height int) {
	x, y, coding := int(r.u8())*TileSize, int(r.u8())*TileSize, r.u8()
	if r.fault != "" {
		return
	}
	if x >= width || y >= height {
		r.fail("outside the screen")
		return
	}
	w, h := min(TileSize, width-x), min(TileSize, height-y)
	row := func(i int) []byte {
		start := ((y+i)*width + x) * 4
		return picture[start : start+w*4]
	}
	switch coding {
	case TileRaw:
		body := r.bytes(w * h * 3)
		if body == nil {
			return
		}
		for i := range h {
			dst := row(i)
			for j := range w {
				p := body[(i*w+j)*3:]
				dst[j*4], dst[j*4+1], dst[j*4+2], dst[j*4+3] = p[0], p[1], p[2], 0xff
			}
		}
	case TileSolid:
		c := r.bytes(3)
		if c == nil {
			return
		}
		for i := range h {
			dst := row(i)
			for j := range w {
				dst[j*4], dst[j*4+1], dst[j*4+2], dst[j*4+3] = c[0], c[1], c[2], 0xff
			}
		}
	case 1, 2, 4, 8:
		bits := int(coding)
		colours := int(r.u8()) + 1
		if r.fault == "" && colours > 1<<bits {
			r.fail("more colours than its coding can name")
		}
		palette := r.bytes(colours * 3)
		stride := (w*bits + 7) / 8
		body := r.bytes(stride * h)
		if body == nil {
			return
		}
		mask := 1<<bits - 1
		for i := range h {
			dst, src := row(i), body[i*stride:(i+1)*stride]
			for j := range w {
				index := int(src[j*bits/8]) >> (j * bits % 8) & mask
				if index >= colours {
					r.fail("index is not in the palette")
					return
				}
				c := palette[index*3:]
				dst[j*4], dst[j*4+1], dst[j*4+2], dst[j*4+3] = c[0], c[1], c[2], 0xff
			}
		}
	default:
		r.fail("unknown coding")
	}
}
