package encode

const (
	maxColours = 256
	slotBits   = 10 // four slots a colour: short probes
)

// palette finds the colours of one tile. Its tables are reused; a slot counts only when its turn is current.
type palette struct {
	colours [maxColours]uint32 // in order of appearance
	indices [tileSize * tileSize]byte

	turn  uint32
	turns [1 << slotBits]uint32
	keys  [1 << slotBits]uint32
	index [1 << slotBits]byte
}

// count returns how many colours the w × h pixels at the start of pix have, and fills colours and indices;
// 0 means more than 256.
func (p *palette) count(pix []uint32, stride, w, h int) int {
	if p.turn++; p.turn == 0 { // wrapped: old turns would count again
		clear(p.turns[:])
		p.turn = 1
	}
	n := 0
	last, lastIndex := ^pix[0], byte(0)
	at := 0
	for y := range h {
		line := pix[y*stride : y*stride+w]
		for _, c := range line {
			if c != last {
				slot := c * 0x9e3779b1 >> (32 - slotBits)
				for p.turns[slot] == p.turn && p.keys[slot] != c {
					slot = (slot + 1) & (1<<slotBits - 1)
				}
				if p.turns[slot] != p.turn {
					if n == maxColours {
						return 0
					}
					p.turns[slot], p.keys[slot], p.index[slot] = p.turn, c, byte(n)
					p.colours[n] = c
					n++
				}
				last, lastIndex = c, p.index[slot]
			}
			p.indices[at] = lastIndex
			at++
		}
	}
	return n
}
