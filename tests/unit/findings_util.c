/* SPDX-License-Identifier: MIT
 *
 * findings: see findings_util.h.
 */
#include "tests/unit/findings_util.h"

#include "tests/unit/ok_util.h"

#include "core/keys/keys.h"
#include "core/store/store.h"

#include <stdlib.h>

bool findings_print;

static char *text;
static size_t text_len, text_room;

static void append(const char *words)
{
	const size_t n = strlen(words);

	if (text_len + n + 1 > text_room) {
		text_room = 2 * (text_len + n + 1);
		text = realloc(text, text_room);
		assert_non_null(text);
	}
	memcpy(text + text_len, words, n + 1);
	text_len += n;
}

const char *findings_text(void)
{
	return text ? text : "";
}

void findings_forget(void)
{
	text_len = 0;
	if (text)
		text[0] = '\0';
}

bool findings_have(const char *words)
{
	return strstr(findings_text(), words) != NULL;
}

void findings_keep_lost(void *ctx, bool lost, const char *line)
{
	(void)ctx;
	if (findings_print)
		print_message("#   %s%s\n", lost ? "lost: " : "", line);
	append(lost ? "lost: " : "");
	append(line);
	append("\n");
}

void findings_keep(void *ctx, const char *line)
{
	findings_keep_lost(ctx, false, line);
}

void findings_none(struct keys *k)
{
	const struct check_options o = { .problem = findings_keep, .follows = findings_keep };
	struct check_report rep;

	ok(check_run(k, &o, &rep));
	if (rep.problems == 0)
		return;
	if (ok_failed)
		ok_failed();
	fail_msg("check finds:\n%s", findings_text());
}

struct keys *findings_open_clean(const char *path)
{
	const struct store_options o = { .path = path, .read_only = true };
	struct keys *k;

	ok(keys_open(&o, &k));
	findings_none(k);
	return k;
}
