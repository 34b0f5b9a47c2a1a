/* SPDX-License-Identifier: MIT
 *
 * fuzz_check: `check` and `dump` of whole images: they look at everything, and say what they find.
 */
#include "tests/fuzz/fuzz_util.h"

#include "core/check/check.h"
#include "core/stream/stream.h"

#include <fcntl.h>

static void problem(void *ctx, const char *text)
{
	unsigned *count = ctx;

	check(strlen(text) > 0);
	(*count)++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int null = -1;
	struct input in = { data, data + size };
	unsigned count = 0;
	struct check_options o = { .problem = problem, .ctx = &count };
	struct check_report report;
	struct stream_counts counts;
	struct keys *k;

	if (null < 0)
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	world_seed(data, size);
	if (world_open(&in, WORLD_ALL, in_u8(&in) % 4 != 0, &k) < 0)
		return 0;
	if (check_run(k, &o, &report) == 0)
		check(report.problems == count);
	(void)stream_dump(k, null, NULL, &counts);
	(void)keys_close(k);
	return 0;
}
