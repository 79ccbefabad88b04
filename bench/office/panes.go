package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// page is the program in the larger terminal: an editor in which somebody types, then a log that scrolls, then pages of a
// document.
func page(ctx context.Context, s script) error {
	w := newWriter(1)
	w.page(0)
	line, column := 22, 9
	fmt.Printf("\x1b[%d;%dH", line, column)
	for t := typing + 300*time.Millisecond; t < scrolling-300*time.Millisecond; {
		if err := s.at(ctx, t); err != nil {
			return err
		}
		// A hundred and fifty milliseconds between keys, irregular, with a pause after a word.
		letter := w.letter()
		fmt.Print(letter)
		if column++; column > 96 {
			line, column = line+1, 9
			fmt.Printf("\x1b[%d;%dH", line, column)
		}
		t += 90*time.Millisecond + time.Duration(w.random.IntN(120))*time.Millisecond
		if letter == " " {
			t += 120 * time.Millisecond
		}
	}

	if err := s.at(ctx, scrolling); err != nil {
		return err
	}
	fmt.Print("\x1b[38;1H")
	for t, number := scrolling, 0; t < turning-500*time.Millisecond; number++ {
		if err := s.at(ctx, t); err != nil {
			return err
		}
		fmt.Print("\r\n" + w.log(number))
		// Forty lines at once now and then, as a listing; else sixteen a second.
		if number%40 != 0 {
			t += time.Second / 16
			continue
		}
		for range 40 {
			number++
			fmt.Print("\r\n" + w.log(number))
		}
		t += time.Second
	}

	for number := range 8 {
		if err := s.at(ctx, turning+time.Duration(number)*750*time.Millisecond); err != nil {
			return err
		}
		w.page(number + 1)
	}
	<-ctx.Done()
	return nil
}

// note is the program in the smaller terminal: full of text while it is dragged, then somebody types.
func note(ctx context.Context, s script) error {
	w := newWriter(2)
	fmt.Print("\x1b[?7l\x1b[H")
	for line := range 16 {
		fmt.Printf("\x1b[%d;2H%s", line+1, cut(w.sentence(), 53))
	}
	fmt.Print("\x1b[17;2H> ")
	for t := closing; t < end-400*time.Millisecond; t += 140 * time.Millisecond {
		if err := s.at(ctx, t); err != nil {
			return err
		}
		fmt.Print(w.letter())
	}
	<-ctx.Done()
	return nil
}

// A writer makes text that is the same every time.
type writer struct {
	random *rand.Rand
	rest   string // of the word that is being typed
}

func newWriter(seed uint64) *writer { return &writer{random: rand.New(rand.NewPCG(seed, 7))} }

var words = strings.Fields(`account address after again agreement amount and application archive at balance before budget by cell
	change chapter clause client column committee contract cost customer date delivery department design document draft each
	estimate figure file final first for from group in invoice is issue item letter line list meeting minutes month network
	not number of offer on order other page paragraph payment period plan please price project quarter question quote rate
	reason receipt report request result review row schedule second section see service sheet summary table tax team that the
	this time title to total under update user value version we week will with work year`)

func (w *writer) word() string { return words[w.random.IntN(len(words))] }

func (w *writer) sentence() string {
	parts := make([]string, 8+w.random.IntN(12))
	for i := range parts {
		parts[i] = w.word()
	}
	return strings.ToUpper(parts[0][:1]) + strings.Join(parts, " ")[1:] + "."
}

func (w *writer) letter() string {
	if w.rest == "" {
		w.rest = w.word() + " "
	}
	letter := w.rest[:1]
	w.rest = w.rest[1:]
	return letter
}

// page fills the terminal with a new page: a heading, numbered lines in the colours of an editor, a status line.
func (w *writer) page(number int) {
	var text strings.Builder
	fmt.Fprintf(&text, "\x1b[H\x1b[2J\x1b[48;5;24m\x1b[97m\x1b[K  %-60s page %d\x1b[0m", w.sentence()[:30], number+1)
	for line := 2; line < 38; line++ {
		fmt.Fprintf(&text, "\x1b[%d;1H\x1b[38;5;245m%5d\x1b[0m  ", line, number*36+line-1)
		if line%9 == 2 {
			fmt.Fprintf(&text, "\x1b[1;38;5;24m%s\x1b[0m", cut(w.sentence(), 50))
			continue
		}
		if line >= 20 && line <= 24 {
			continue // room for typing
		}
		for word := range strings.FieldsSeq(cut(w.sentence()+" "+w.sentence(), 104)) {
			switch {
			case len(word) > 8:
				fmt.Fprintf(&text, "\x1b[38;5;88m%s\x1b[0m ", word)
			case len(word) < 3:
				fmt.Fprintf(&text, "\x1b[38;5;26m%s\x1b[0m ", word)
			default:
				text.WriteString(word + " ")
			}
		}
	}
	fmt.Fprintf(&text, "\x1b[38;1H\x1b[48;5;252m\x1b[K %s\x1b[0m", cut(w.sentence(), 70))
	fmt.Print(text.String())
}

// log is a line as programs write them.
func (w *writer) log(number int) string {
	level := []string{"\x1b[32mINFO\x1b[0m ", "\x1b[32mINFO\x1b[0m ", "\x1b[34mDEBUG\x1b[0m", "\x1b[33mWARN\x1b[0m "}[w.random.IntN(4)]
	return fmt.Sprintf("\x1b[38;5;245m09:%02d:%02d.%03d\x1b[0m %s %s/%s: %s", number/60%60, number%60, w.random.IntN(1000), level,
		w.word(), w.word(), cut(w.sentence(), 80))
}

func cut(text string, length int) string {
	if len(text) > length {
		return text[:length]
	}
	return text
}
