package signin

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a password, in characters. NIST SP 800-63B asks for length and against what is guessed first, and advises against
// rules on kinds of characters.
const (
	minPassword = 12
	maxPassword = 128
	// minDistinct characters must differ, or a password of any length is one that is guessed early.
	minDistinct = 6
)

// guessed are parts that make up the passwords that are tried first. What is left after they are taken away must be long enough alone.
var guessed = []string{
	"password", "passwort", "passw0rd", "p@ssw0rd", "welcome", "letmein", "iloveyou", "administrator", "admin", "qwertyuiop", "qwertz", "qwerty", "asdfghjkl",
	"zxcvbnm", "1q2w3e4r", "1qaz2wsx", "abc123", "dragon", "monkey", "football", "baseball", "sunshine", "princess", "superman", "batman", "trustno1",
	"master", "shadow", "secret", "changeme", "temporary", "penstock", "appstream", "january", "february", "september", "october", "november",
	"december", "spring", "summer", "autumn", "winter", "monday", "friday",
}

// rows are characters that stand beside each other on keyboards and in the alphabet.
const rows = "abcdefghijklmnopqrstuvwxyz 01234567890 qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm azertyuiop"

// checkPassword refuses passwords that are too short, or that are guessed early; names are what the user is called.
func checkPassword(password string, names ...string) error {
	weak := func(format string, args ...any) error {
		return &Refusal{Code: CodeWeak, Reason: fmt.Sprintf(format, args...)}
	}
	if !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl) {
		return weak("the password holds characters that cannot be typed")
	}
	n := utf8.RuneCountInString(password)
	switch {
	case n < minPassword:
		return weak("the password is shorter than %d characters", minPassword)
	case n > maxPassword:
		return weak("the password is longer than %d characters", maxPassword)
	}
	distinct := map[rune]bool{}
	for _, r := range password {
		distinct[r] = true
	}
	if len(distinct) < minDistinct {
		return weak("the password has fewer than %d different characters", minDistinct)
	}
	rest := strings.ToLower(password)
	parts := slices.Clone(guessed)
	for _, name := range names {
		for _, part := range strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
			if utf8.RuneCountInString(part) >= 3 {
				parts = append(parts, part)
			}
		}
	}
	// The longest first, or a part of one would stay.
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	for _, p := range parts {
		rest = strings.ReplaceAll(rest, p, "")
	}
	if left := utf8.RuneCountInString(collapse(rest)); left < minPassword/2 {
		return weak("the password is made of words, names, rows of keys or repetitions that are guessed early")
	}
	return nil
}

// collapse takes one character for each run of neighbours: "abcd", "dcba", "7777".
func collapse(s string) string {
	var out []rune
	var last rune
	for _, r := range s {
		if r != last && !neighbours(last, r) {
			out = append(out, r)
		}
		last = r
	}
	return string(out)
}

func neighbours(a, b rune) bool {
	pair := string([]rune{a, b})
	return a > ' ' && b > ' ' && (strings.Contains(rows, pair) || strings.Contains(rows, string([]rune{b, a})))
}

// letters are those that nobody mistakes for another.
const letters = "ABCDEFGHJKMNPQRSTVWXYZ23456789"

// randomText is n letters in groups of four: a bit less than 5 random bits a letter.
func randomText(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(letters[randomBelow(len(letters))])
	}
	return b.String()
}

// randomBelow is uniform: values that would favour small results are drawn again.
func randomBelow(n int) int {
	most := 256 - 256%n
	for {
		var b [1]byte
		_, _ = rand.Read(b[:]) // never fails
		if int(b[0]) < most {
			return int(b[0]) % n
		}
	}
}

// plainCode is a code as it was made, however the user typed it.
func plainCode(typed string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || unicode.IsSpace(r) {
			return -1
		}
		return unicode.ToUpper(r)
	}, typed)
}
