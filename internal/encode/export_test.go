package encode

// Codings lists the codings of the tile records that the last update held.
func (d *Decoder) Codings() []byte {
	var codings []byte
	for raw := d.raw; len(raw) > 0; {
		codings = append(codings, raw[2])
		_, _, _, _, n := d.record(raw)
		raw = raw[n:]
	}
	return codings
}
