package encode

import (
	"slices"

	"penstock.dev/penstock/internal/wire/channel"
)

// leastFill is how many solid tiles make a fill: it takes 11 bytes, and a record in the stream two or three.
const leastFill = 8

// maxFills bounds the fills of an update.
const maxFills = 1024

// addSolid makes rectangles of the solid tiles, grown to the right and then down: the large ones are fills,
// the others records.
func (t *Tiles) addSolid() {
	slices.Sort(t.solid) // an update may begin in the middle
	for _, first := range t.solid {
		i := int(first)
		if !t.isSolid[i] {
			continue
		}
		colour := t.shadow[t.at(i)]
		width := 1
		for i%t.columns+width < t.columns && t.solidIn(i+width, colour) {
			width++
		}
		height := 1
		for i/t.columns+height < t.rows && t.solidRow(i+height*t.columns, width, colour) {
			height++
		}
		if width*height < leastFill || len(t.fills) == maxFills {
			t.isSolid[i] = false
			t.raw = appendRGB(append(t.raw, byte(i%t.columns), byte(i/t.columns), channel.TileSolid), colour)
			continue
		}
		for row := range height {
			clear(t.isSolid[i+row*t.columns:][:width])
		}
		x, y := i%t.columns*tileSize, i/t.columns*tileSize
		t.fills = append(t.fills, channel.Fill{
			X: uint16(x), Y: uint16(y),
			Width:  uint16(min(width*tileSize, t.size.Width-x)),
			Height: uint16(min(height*tileSize, t.size.Height-y)),
			R:      byte(colour >> 16), G: byte(colour >> 8), B: byte(colour),
		})
	}
	t.solid = t.solid[:0]
}

// at is the index of the first pixel of the tile i.
func (t *Tiles) at(i int) int {
	return i/t.columns*tileSize*t.size.Width + i%t.columns*tileSize
}

func (t *Tiles) solidIn(i int, colour uint32) bool {
	return t.isSolid[i] && t.shadow[t.at(i)] == colour
}

func (t *Tiles) solidRow(i, width int, colour uint32) bool {
	for n := range width {
		if !t.solidIn(i+n, colour) {
			return false
		}
	}
	return true
}
