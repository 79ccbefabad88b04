package transport

import (
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

// fromWire is the value of a viewer's message.
func fromWire(m channel.Message) media.FromViewer {
	input := func(seq uint32, e media.Event) media.FromViewer { return &media.Input{Seq: seq, Event: e} }
	switch m := m.(type) {
	case *channel.Hello:
		return &media.Hello{
			Version: int(m.Version), Size: size(m.Width, m.Height), Scale: int(m.Scale),
			FixedSize:    m.Flags&channel.HelloFixedSize != 0,
			KeepsCursors: m.Capabilities&channel.HelloKeepsCursors != 0,
		}
	case *channel.Ping:
		return &media.Ping{Time: m.Time}
	case *channel.Pong:
		return &media.Pong{Time: m.Time}
	case *channel.Resize:
		return &media.Resize{Size: size(m.Width, m.Height), Scale: int(m.Scale)}
	case *channel.Monitors:
		layout := media.Layout{Scale: int(m.Scale)}
		for i, one := range m.Monitors {
			layout.Monitors[i] = size(one.Width, one.Height)
		}
		return &media.Monitors{Layout: layout}
	case *channel.Visibility:
		return &media.Visibility{Hidden: m.Hidden}
	case *channel.End:
		return &media.End{}
	case *channel.NeedDisplayTicket:
		return &media.NeedDisplayTicket{}
	case *channel.Pointer:
		return input(m.Seq, media.Pointer{X: int(m.X), Y: int(m.Y), Buttons: media.Buttons(m.Buttons)})
	case *channel.Wheel:
		return input(m.Seq, media.Wheel{X: int(m.X), Y: int(m.Y), DX: int(m.DX), DY: int(m.DY)})
	case *channel.Key:
		return input(m.Seq, media.Key{
			Down: m.Down, Repeat: m.Flags&channel.KeyRepeat != 0,
			Modifiers: media.Modifiers(m.Flags &^ channel.KeyRepeat), Code: m.Code, Key: m.Key,
		})
	case *channel.Text:
		return input(m.Seq, media.Text{Text: m.Text})
	case *channel.Relative:
		return input(m.Seq, media.Relative{DX: int(m.DX), DY: int(m.DY), Buttons: media.Buttons(m.Buttons)})
	case *channel.Keyboard:
		keys := make(map[string]string, len(m.Keys))
		for _, key := range m.Keys {
			keys[key.Code] = key.Key
		}
		return input(m.Seq, media.Keyboard{Language: m.Language, Keys: keys})
	case *channel.ReleaseAll:
		return input(m.Seq, media.ReleaseAll{})
	case *channel.Start:
		return &media.Start{Version: int(m.Version), Codecs: media.Codecs(m.Codecs), Window: int(m.Window)}
	case *channel.Ack:
		return &media.Ack{Seq: m.Seq, DecodeMicros: m.DecodeMicros, Queued: int(m.Queued)}
	case *channel.Refresh:
		return &media.Refresh{Reason: m.Reason}
	}
	return nil
}

func size(width, height uint16) media.Size { return media.Size{Width: int(width), Height: int(height)} }

// toWire is the message for a value; nil for one that has none.
func toWire(m media.ToViewer) channel.Message {
	switch m := m.(type) {
	case *media.Welcome:
		return &channel.Welcome{
			Version: uint16(m.Version), Capabilities: channel.WelcomeMonitors, DisplayPort: m.DisplayPort,
			MaxWidth: uint16(m.MaxSize.Width), MaxHeight: uint16(m.MaxSize.Height),
			SessionID: m.Session, Application: m.Application,
			DisplayTicket: m.DisplayTicket, ResumeTicket: m.ResumeTicket,
		}
	case *media.Ping:
		return &channel.Ping{Time: m.Time}
	case *media.Pong:
		return &channel.Pong{Time: m.Time}
	case *media.Cursor:
		return &channel.Cursor{
			Serial: m.Serial, Width: uint16(m.Size.Width), Height: uint16(m.Size.Height),
			HotX: uint16(m.Hot.X), HotY: uint16(m.Hot.Y), RGBA: m.RGBA,
		}
	case *media.CursorAgain:
		return &channel.CursorAgain{Serial: m.Serial}
	case *media.Notice:
		return &channel.Notice{Code: uint16(m.Code), Text: m.Text}
	case *media.Ended:
		return &channel.Ended{Code: channel.EndedCode(m.Code), Reason: m.Reason}
	case *media.Tickets:
		return &channel.Tickets{DisplayTicket: m.Display, ResumeTicket: m.Resume}
	}
	return nil
}
