/* SPDX-License-Identifier: MIT
 *
 * fuzz_tree: a tree of valid pages that holds whatever items the input makes (inodes, entries, attributes, extents,
 * bitmaps' items, orphans), then every call that reads and what the input says of those that change.
 */
#include "tests/fuzz/fuzz_util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct keys *k;

	world_seed(data, size);
	if (world_open(&in, WORLD_ITEMS | WORLD_SLOTS, false, &k) < 0)
		return 0;
	calls_read(k);
	calls_run(k, &in);
	/* What was shown before the changes is shown after them, or an error. */
	calls_read(k);
	calls_settle(k);
	(void)keys_close(k);
	return 0;
}
