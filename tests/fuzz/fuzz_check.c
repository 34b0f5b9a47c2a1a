/* SPDX-License-Identifier: MIT
 *
 * fuzz_check: `check` and `dump` of whole images: they look at everything, and say what they find; also of what is put
 * together of images that are taken for damaged.
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

static void say(void *ctx, enum salvage_finding kind, const char *text)
{
	(void)ctx;
	(void)kind;
	check(strlen(text) > 0);
}

static void check_salvaged(struct input *in)
{
	struct store_salvage v = { .say = say, .supers_told = true };
	unsigned count = 0;
	struct check_options o = { .problem = problem, .ctx = &count };
	struct check_report report;
	struct keys *k;

	if (world_salvage(in, WORLD_ALL, &v, &k) == 0) {
		if (check_run(k, &o, &report) == 0)
			check(report.problems == count);
		(void)keys_close(k);
	}
	salvage_release(&v);
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
	uint8_t how;

	if (null < 0)
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	world_seed(data, size);
	how = in_u8(&in);
	if (how % 8 == 7) {
		check_salvaged(&in);
		return 0;
	}
	if (world_open(&in, WORLD_ALL, how % 4 != 0, &k) < 0)
		return 0;
	if (check_run(k, &o, &report) == 0)
		check(report.problems == count);
	(void)stream_dump(k, null, NULL, &counts);
	(void)keys_close(k);
	return 0;
}
