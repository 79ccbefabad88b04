// Command pacing measures a session's stream over links of different bandwidth, delay and loss: how long a key's answer
// takes while a film plays or photographs come, how much waits before the link, and how much of it is used. It writes
// JSON. It needs root, for two network namespaces of its own.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"time"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/penstocktest/slowlink"
	"penstock.dev/penstock/internal/video"
	"penstock.dev/penstock/internal/wire/channel"
)

// Result is what was seen under one condition. Times are milliseconds.
type Result struct {
	Mbit       float64 `json:"mbit"`
	Trip       float64 `json:"trip"`
	Loss       float64 `json:"loss"` // share
	Congestion string  `json:"congestion"`
	Lossy      bool    `json:"lossy"`
	Load       string  `json:"load"`

	Keys      int     `json:"keys"`
	EchoP50   float64 `json:"echoP50"`
	EchoP95   float64 `json:"echoP95"`
	Carried   float64 `json:"carried"`   // Mbit/s
	QueueP50  float64 `json:"queueP50"`  // KiB before the link
	QueueP95  float64 `json:"queueP95"`  // KiB
	QueueMost float64 `json:"queueMost"` // KiB
	Updates   float64 `json:"updates"`   // a second
	Largest   float64 `json:"largest"`   // KiB
	Frames    float64 `json:"frames"`    // whole ones, a second
	Torn      int     `json:"torn"`
	AgeP50    float64 `json:"ageP50"`
	AgeP95    float64 `json:"ageP95"`
}

func main() {
	seconds := flag.Float64("seconds", 6, "how long each condition is measured")
	only := flag.String("only", "", "conditions, as MBIT/TRIP/LOSS/LOAD with commas between them")
	congestion := flag.String("congestion", "cubic", "TCP's congestion control")
	lossy := flag.Bool("lossy", false, "the viewer offers JPEG and H.264; a frame of video counts as drawn when it is taken")
	profile := flag.String("profile", "", "write a CPU profile of everything here into this `file`")
	flag.Parse()
	if missing := slowlink.Missing(); missing != "" {
		fmt.Fprintln(os.Stderr, "pacing:", missing)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "pacing:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	if err := run(ctx, *seconds, *only, *congestion, *lossy); err != nil {
		fmt.Fprintln(os.Stderr, "pacing:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, seconds float64, only, congestion string, lossy bool) error {
	results := []Result{}
	for _, mbit := range []float64{0.5, 2, 10, 100} {
		for _, trip := range []float64{5, 50, 150} {
			for _, loss := range []float64{0, 0.01} {
				for _, load := range []string{"none", "photographs", "film"} {
					name := fmt.Sprintf("%v/%v/%v/%s", mbit, trip, loss, load)
					if only != "" && !slices.Contains(strings.Split(only, ","), name) || only == "" && load == "none" && loss > 0 {
						continue
					}
					r := Result{Mbit: mbit, Trip: trip, Loss: loss, Congestion: congestion, Load: load, Lossy: lossy}
					if err := measure(ctx, &r, time.Duration(seconds*float64(time.Second))); err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					results = append(results, r)
					fmt.Fprintf(os.Stderr, "%-26s echo %6.1f %6.1f ms (%.2f× %.2f×)  %7.2f Mbit/s  queue %6.1f %6.1f %6.1f KiB  %5.1f updates/s of %5.0f KiB  film %.1f/s torn %d age %.0f %.0f\n", name,
						r.EchoP50, r.EchoP95, r.EchoP50/r.Trip, r.EchoP95/r.Trip, r.Carried, r.QueueP50, r.QueueP95, r.QueueMost, r.Updates, r.Largest, r.Frames, r.Torn, r.AgeP50, r.AgeP95)
				}
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

// warm is how long the stream runs before it is measured.
const warm = 2 * time.Second

func measure(ctx context.Context, r *Result, length time.Duration) error {
	link, err := slowlink.Open(slowlink.Conditions{
		Rate: r.Mbit * 1e6, Trip: time.Duration(r.Trip * float64(time.Millisecond)), Loss: r.Loss,
	}, r.Congestion)
	if err != nil {
		return err
	}
	defer link.Close()
	options, codecs := encode.Options{}, channel.CodecTiles|channel.CodecCopy|channel.CodecFill
	if r.Lossy {
		options.Lossy = video.Load(slog.New(slog.DiscardHandler))
		codecs |= channel.CodecJPEG | channel.CodecH264
	}
	session, err := slowlink.Start(link, func(c media.Codecs) (media.Encoder, error) { return encode.NewTiles(c, options) })
	if err != nil {
		return err
	}
	defer session.Close()
	viewer, err := session.Open(codecs)
	if err != nil {
		return err
	}
	defer viewer.Close()
	if err := viewer.Exact(20 * time.Second); err != nil {
		return err
	}
	switch r.Load {
	case "photographs":
		defer session.Screen.PlayPages(1500*time.Millisecond, false)()
	case "film":
		defer session.Screen.PlayFilm()()
	}
	if err := pause(ctx, warm); err != nil {
		return err
	}
	if _, err := viewer.Take(); err != nil {
		return err
	}
	start := time.Now()
	rng := rand.New(rand.NewPCG(3, 4))
	for time.Since(start) < length {
		if err := viewer.Key(ctx); err != nil {
			return err
		}
		if err := viewer.Answered(20 * time.Second); err != nil {
			return err
		}
		if err := pause(ctx, time.Duration(80+rng.IntN(140))*time.Millisecond); err != nil {
			return err
		}
	}
	took := time.Since(start).Seconds()
	seen, err := viewer.Take()
	if err != nil {
		return err
	}
	ms := func(list []time.Duration, q float64) float64 { return at(list, q).Seconds() * 1000 }
	kib := func(q float64) float64 { return float64(at(seen.Waiting, q)) / 1024 }
	r.Keys, r.EchoP50, r.EchoP95 = len(seen.Echo), ms(seen.Echo, 0.5), ms(seen.Echo, 0.95)
	r.Carried = float64(seen.Bytes) * 8 / 1e6 / took
	r.QueueP50, r.QueueP95, r.QueueMost = kib(0.5), kib(0.95), kib(1)
	r.Updates, r.Largest = float64(seen.Updates)/took, float64(seen.Largest)/1024
	r.Frames, r.Torn, r.AgeP50, r.AgeP95 = float64(seen.Frames)/took, seen.Torn, ms(seen.Ages, 0.5), ms(seen.Ages, 0.95)
	return nil
}

func at[T int | time.Duration](list []T, q float64) T {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[int(q*float64(len(list)-1))]
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
