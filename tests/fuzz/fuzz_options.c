/* SPDX-License-Identifier: MIT
 *
 * fuzz_options: the command line of `mount`: words parted by NUL bytes.
 */
#include "fs/log.h"
#include "fs/options.h"
#include "tests/fuzz/fuzz_util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define WORDS 24

/* What is wrong is told on standard error, which here is nobody's. */
static void silence(void)
{
	static int null = -1;

	if (null < 0) {
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		log_set_level(LOG_LEVEL_ERROR);
		check(null >= 0);
	}
	(void)dup2(null, STDERR_FILENO);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[WORDS + 2], *text = malloc(size + 1), *p = text;
	int argc = 1, err = dup(STDERR_FILENO), r;
	struct options o;
	uint64_t bytes;

	check(text && err >= 0);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	argv[0] = (char *)(uintptr_t)"mount";
	for (; p <= text + size && argc <= WORDS; p += strlen(p) + 1)
		argv[argc++] = p;
	argv[argc] = NULL;
	silence();
	if (options_parse_bytes(text, &bytes))
		check(bytes <= INT64_MAX);
	r = options_parse(&o, argc, argv);
	(void)dup2(err, STDERR_FILENO);
	(void)close(err);
	check(r >= 0);
	if (r == 0 && !o.help)
		check(o.store && o.mountpoint && o.sync_interval_s <= 86400);
	options_release(&o);
	free(text);
	return 0;
}
