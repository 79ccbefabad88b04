package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/fault"
)

// userList is what `penstock users --json` prints.
type userList struct {
	Users []userView           `json:"users"`
	Mails []signin.WaitingMail `json:"mails"` // that were not delivered yet
}

type userView struct {
	UserName     string    `json:"userName"`
	FirstName    string    `json:"firstName,omitempty"`
	LastName     string    `json:"lastName,omitempty"`
	Enabled      bool      `json:"enabled"`
	Status       string    `json:"status"` // UNCONFIRMED, CONFIRMED
	SecondFactor bool      `json:"secondFactor"`
	SignIns      int       `json:"signIns"` // browsers that are signed in
	Created      time.Time `json:"created"`
}

// maxListed bounds what is listed at one time.
const maxListed = 100_000

// usersAdmin adds the operator's view of users to the operator's socket.
func usersAdmin(next http.Handler, s *signin.Service, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", next)
	fail := func(w http.ResponseWriter, err error) {
		if f, ok := errors.AsType[*fault.Error](err); ok {
			http.Error(w, f.Error(), http.StatusNotFound)
			return
		}
		log.Error("operator's request about users failed", "error", err)
		http.Error(w, "it failed; the log says why", http.StatusInternalServerError)
	}
	mux.HandleFunc("GET /users", func(w http.ResponseWriter, r *http.Request) {
		out := userList{Users: []userView{}}
		us, _, err := s.Users(r.Context(), "", maxListed)
		for _, u := range us {
			v := userView{
				UserName: u.Name, FirstName: u.FirstName, LastName: u.LastName, Enabled: u.Enabled, Status: string(u.Status), Created: u.Created,
			}
			if err == nil {
				v.SecondFactor, v.SignIns, err = s.Inspect(r.Context(), u.Name)
			}
			out.Users = append(out.Users, v)
		}
		if err == nil {
			out.Mails, err = s.WaitingMails(r.Context())
		}
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
	mux.HandleFunc("POST /users/remove-second-factor", func(w http.ResponseWriter, r *http.Request) {
		if err := s.ResetFactor(r.Context(), r.URL.Query().Get("name")); err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{}\n"))
	})
	return mux
}

func usersCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("penstock users", flag.ContinueOnError)
	dir := fs.String("data-dir", "./penstock-data", "`folder` of the running penstock dev")
	asJSON := fs.Bool("json", false, "print a JSON object")
	remove := fs.String("remove-second-factor", "", "remove the second factor of the user with this `name`, who lost device and recovery codes, and end the user's sign-ins")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if *remove != "" {
		var none struct{}
		if err := askAdminBy(ctx, http.MethodPost, *dir, "/users/remove-second-factor?"+url.Values{"name": {*remove}}.Encode(), &none); err != nil {
			return err
		}
		fmt.Printf("the second factor of %s is removed\n", *remove)
		return nil
	}
	var list userList
	if err := askAdmin(ctx, *dir, "/users", &list); err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "USER\tNAME\tENABLED\tSTATUS\tSECOND FACTOR\tSIGN-INS")
	for _, u := range list.Users {
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%v\t%d\n", u.UserName, strings.TrimSpace(u.FirstName+" "+u.LastName), u.Enabled, u.Status, u.SecondFactor, u.SignIns)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, m := range list.Mails {
		fmt.Printf("mail %s waits since %d attempts: %s\n", m.ID, m.Attempts, m.Failure)
	}
	return nil
}
