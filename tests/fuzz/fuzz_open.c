/* SPDX-License-Identifier: MIT
 *
 * fuzz_open: the opener and recovery, with whole images: superblocks, pages, bitmaps and journal changed alike.
 */
#include "tests/fuzz/fuzz_util.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct keys *k;

	world_seed(data, size);
	if (world_open(&in, WORLD_ALL, false, &k) < 0)
		return 0;
	calls_read(k);
	calls_run(k, &in);
	calls_settle(k);
	(void)keys_close(k);
	return 0;
}
