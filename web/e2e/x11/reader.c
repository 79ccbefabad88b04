// An X client as toolkits are: notes what its window gets, one JSON object a line, until its input ends.
//
//   {"t":"ready"}                            has the focus
//   {"t":"down","code":38,"state":0,"sym":"a","text":"61"}    text is UTF-8 in hex, after Xlib's input method (Compose)
//   {"t":"up","code":38,"state":0,"sym":"a"}
//   {"t":"press","button":1,"x":3,"y":4} {"t":"release",…} {"t":"move","x":3,"y":4}
//   {"t":"mapping"}                          the keyboard changed
//
// Lines on its standard input are commands: "hide" and "show" the cursor, "warp" the pointer to the middle,
// "busy MS" (look at no event for so long), "mark N" (answers {"t":"mark","n":N} when all before was seen).
#include <X11/XKBlib.h>
#include <X11/Xlib.h>
#include <X11/Xutil.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Display *d;
static Window w;
static XIC ic;

static void key(XEvent *e) {
	KeySym sym = NoSymbol;
	unsigned char text[256] = "";
	int n = 0, down = e->type == KeyPress;
	if (down) {
		if (ic) {
			Status status;
			n = Xutf8LookupString(ic, &e->xkey, (char *)text, sizeof text, &sym, &status);
			if (status != XLookupChars && status != XLookupBoth) n = 0;
			if (status == XLookupChars) sym = NoSymbol;
		}
	} else {
		sym = XkbKeycodeToKeysym(d, e->xkey.keycode, 0, 0);
	}
	const char *name = sym == NoSymbol ? "" : XKeysymToString(sym);
	printf("{\"t\":\"%s\",\"code\":%u,\"state\":%u,\"sym\":\"%s\"", down ? "down" : "up", e->xkey.keycode, e->xkey.state, name ? name : "");
	if (down) {
		printf(",\"text\":\"");
		for (int i = 0; i < n; i++) printf("%02x", text[i]);
		printf("\"");
	}
	printf("}\n");
}

static void drain(void) {
	while (XPending(d)) {
		XEvent e;
		XNextEvent(d, &e);
		if (e.type == MappingNotify) {
			XRefreshKeyboardMapping(&e.xmapping);
			printf("{\"t\":\"mapping\"}\n");
			continue;
		}
		if (XFilterEvent(&e, None)) continue;
		switch (e.type) {
		case KeyPress:
		case KeyRelease:
			key(&e);
			break;
		case ButtonPress:
		case ButtonRelease:
			printf("{\"t\":\"%s\",\"button\":%u,\"x\":%d,\"y\":%d}\n", e.type == ButtonPress ? "press" : "release", e.xbutton.button, e.xbutton.x_root, e.xbutton.y_root);
			break;
		case MotionNotify:
			printf("{\"t\":\"move\",\"x\":%d,\"y\":%d}\n", e.xmotion.x_root, e.xmotion.y_root);
			break;
		case FocusIn:
			if (ic) XSetICFocus(ic);
			printf("{\"t\":\"ready\"}\n");
			break;
		case Expose:
			XSetInputFocus(d, w, RevertToParent, CurrentTime);
			break;
		}
	}
	fflush(stdout);
}

static void command(char *line) {
	if (!strncmp(line, "hide", 4)) {
		Pixmap p = XCreatePixmap(d, w, 1, 1, 1);
		GC gc = XCreateGC(d, p, 0, NULL);
		XFillRectangle(d, p, gc, 0, 0, 1, 1);
		XColor black = {0};
		XDefineCursor(d, w, XCreatePixmapCursor(d, p, p, &black, &black, 0, 0));
	} else if (!strncmp(line, "show", 4)) {
		XUndefineCursor(d, w);
	} else if (!strncmp(line, "warp", 4)) {
		XWarpPointer(d, None, w, 0, 0, 0, 0, 200, 150);
	} else if (!strncmp(line, "busy ", 5)) {
		usleep(1000 * (useconds_t)atoi(line + 5));
	} else if (!strncmp(line, "mark ", 5)) {
		XSync(d, False);
		drain();
		printf("{\"t\":\"mark\",\"n\":%d}\n", atoi(line + 5));
	}
	XFlush(d);
	fflush(stdout);
}

int main(void) {
	setlocale(LC_ALL, "C.UTF-8");
	setenv("XMODIFIERS", "@im=none", 1);
	XSetLocaleModifiers("");
	d = XOpenDisplay(NULL);
	if (!d) return 1;
	int screen = DefaultScreen(d);
	w = XCreateSimpleWindow(d, RootWindow(d, screen), 0, 0, 2000, 2000, 0, 0, WhitePixel(d, screen));
	XStoreName(d, w, "reader");
	XIM im = XOpenIM(d, NULL, NULL, NULL);
	if (im) ic = XCreateIC(im, XNInputStyle, XIMPreeditNothing | XIMStatusNothing, XNClientWindow, w, XNFocusWindow, w, NULL);
	XSelectInput(d, w, KeyPressMask | KeyReleaseMask | ButtonPressMask | ButtonReleaseMask | PointerMotionMask | FocusChangeMask | ExposureMask);
	XSetWindowAttributes over = {.override_redirect = True}; // no frame, no shortcut of the window manager's
	XChangeWindowAttributes(d, w, CWOverrideRedirect, &over);
	XMapRaised(d, w);
	XFlush(d);
	char line[256];
	size_t have = 0;
	for (;;) {
		drain();
		struct pollfd p[2] = {{ConnectionNumber(d), POLLIN, 0}, {0, POLLIN, 0}};
		if (poll(p, 2, -1) < 0) return 1;
		if (p[1].revents) {
			ssize_t n = read(0, line + have, sizeof line - 1 - have);
			if (n <= 0) return 0;
			have += (size_t)n;
			line[have] = 0;
			char *end;
			while ((end = strchr(line, '\n'))) {
				*end = 0;
				command(line);
				have = strlen(end + 1);
				memmove(line, end + 1, have + 1);
			}
		}
	}
}
