package encode

// Codings lists the codings of the tile records that the last update held.
func (d *Decoder) Codings() []byte {
	var codings []byte
	for raw := d.raw; len(raw) > 0; {
		x, y, coding := int(raw[0])*tileSize, int(raw[1])*tileSize, raw[2]
		w, h := min(tileSize, d.Width-x), min(tileSize, d.Height-y)
		n := 3
		switch {
		case coding == 0:
			n += 3 * w * h
		case coding == 16:
			n += 3
		default:
			n += 1 + 3*(int(raw[3])+1) + (w*int(coding)+7)/8*h
		}
		codings = append(codings, coding)
		raw = raw[n:]
	}
	return codings
}
