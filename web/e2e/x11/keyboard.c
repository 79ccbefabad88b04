// What each key of a layout makes, from the machine's XKB data as libxkbcommon reads it: the keyboard that a user
// would have. One JSON object a line:
//
//   keyboard LAYOUT [VARIANT]
//
//   {"key":"AD01","levels":[{"sym":"q","text":"q","dead":[]},…]}
//
// Levels are plain, Shift, AltGr and Shift+AltGr, reached by pressing these keys. A dead key has no text; "dead" has
// what the next key makes of it: {"key","shift","text"}, from the Compose table of en_US.UTF-8.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xkbcommon/xkbcommon-compose.h>
#include <xkbcommon/xkbcommon.h>

static void quoted(const char *s) {
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\') putchar('\\');
		if ((unsigned char)*s < 0x20) printf("\\u%04x", *s);
		else putchar(*s);
	}
	putchar('"');
}

// name of a key without its brackets; NULL for keys that are not of the typing block
static const char *typing(struct xkb_keymap *map, xkb_keycode_t code) {
	const char *n = xkb_keymap_key_get_name(map, code);
	if (!n || strlen(n) != 4) return NULL;
	if (!strncmp(n, "AE", 2) || !strncmp(n, "AD", 2) || !strncmp(n, "AC", 2) || !strncmp(n, "AB", 2)) return n;
	if (!strcmp(n, "TLDE") || !strcmp(n, "BKSL") || !strcmp(n, "LSGT") || !strcmp(n, "SPCE")) return n;
	return NULL;
}

static void press(struct xkb_state *s, struct xkb_keymap *map, int level) {
	xkb_keycode_t shift = xkb_keymap_key_by_name(map, "LFSH"), graph = xkb_keymap_key_by_name(map, "RALT");
	if (level & 2) xkb_state_update_key(s, graph, XKB_KEY_DOWN);
	if (level & 1) xkb_state_update_key(s, shift, XKB_KEY_DOWN);
}

int main(int argc, char **argv) {
	struct xkb_context *c = xkb_context_new(0);
	struct xkb_rule_names names = {"evdev", "pc105", argc > 1 ? argv[1] : "us", argc > 2 ? argv[2] : "", ""};
	struct xkb_keymap *map = xkb_keymap_new_from_names(c, &names, 0);
	struct xkb_compose_table *table = xkb_compose_table_new_from_locale(c, "en_US.UTF-8", 0);
	if (!map || !table) {
		fprintf(stderr, "no such layout, or no Compose table\n");
		return 1;
	}
	xkb_keysym_t graph = XKB_KEY_NoSymbol;
	{
		struct xkb_state *s = xkb_state_new(map);
		graph = xkb_state_key_get_one_sym(s, xkb_keymap_key_by_name(map, "RALT"));
		xkb_state_unref(s);
	}
	for (xkb_keycode_t code = xkb_keymap_min_keycode(map); code <= xkb_keymap_max_keycode(map) && code < 256; code++) {
		const char *name = typing(map, code);
		if (!name) continue;
		printf("{\"key\":\"%s\",\"levels\":[", name);
		for (int level = 0; level < 4; level++) {
			if (level & 2 && graph != XKB_KEY_ISO_Level3_Shift) break;
			struct xkb_state *s = xkb_state_new(map);
			press(s, map, level);
			xkb_keysym_t sym = xkb_state_key_get_one_sym(s, code);
			char symName[64], text[64] = "";
			xkb_keysym_get_name(sym, symName, sizeof symName);
			xkb_state_key_get_utf8(s, code, text, sizeof text);
			// Some keysyms are several characters, as the ligatures of Arabic keyboards.
			struct xkb_compose_state *alone = xkb_compose_state_new(table, 0);
			xkb_compose_state_feed(alone, sym);
			if (xkb_compose_state_get_status(alone) == XKB_COMPOSE_COMPOSED)
				xkb_compose_state_get_utf8(alone, text, sizeof text);
			xkb_compose_state_unref(alone);
			xkb_state_unref(s);
			printf("%s{\"sym\":", level ? "," : "");
			quoted(symName);
			printf(",\"text\":");
			quoted(text);
			printf(",\"dead\":[");
			if (!strncmp(symName, "dead_", 5)) {
				int found = 0;
				for (xkb_keycode_t next = xkb_keymap_min_keycode(map); next < 256 && found < 3; next++) {
					const char *nextName = typing(map, next);
					if (!nextName) continue;
					for (int shift = 0; shift < 2; shift++) {
						struct xkb_state *n = xkb_state_new(map);
						press(n, map, shift);
						xkb_keysym_t base = xkb_state_key_get_one_sym(n, next);
						xkb_state_unref(n);
						struct xkb_compose_state *cs = xkb_compose_state_new(table, 0);
						xkb_compose_state_feed(cs, sym);
						xkb_compose_state_feed(cs, base);
						if (xkb_compose_state_get_status(cs) == XKB_COMPOSE_COMPOSED) {
							char out[64] = "";
							xkb_compose_state_get_utf8(cs, out, sizeof out);
							printf("%s{\"key\":\"%s\",\"shift\":%s,\"text\":", found++ ? "," : "", nextName, shift ? "true" : "false");
							quoted(out);
							printf("}");
						}
						xkb_compose_state_unref(cs);
					}
				}
			}
			printf("]}");
		}
		printf("]}\n");
	}
	return 0;
}
