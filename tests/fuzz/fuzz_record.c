/* SPDX-License-Identifier: MIT
 *
 * fuzz_record: journal records: their framing by itself, then recovery from a journal of whatever records the input
 * makes, each of them valid by its checksum and chain.
 */
#include "tests/fuzz/fuzz_util.h"

static void decode_alone(const uint8_t *data, size_t size)
{
	static struct record_reader r;
	struct mutation m;
	unsigned sum = 0, i;

	if (size > REC_MAX || record_open(&r, data, (uint32_t)size) < 0)
		return;
	for (i = 0; i < r.extent_count; i++)
		if (r.extents[i].flags & EXT_DATA)
			sum += r.extents[i].csums[4 * r.extents[i].count - 1];
	while (record_next(&r, &m) > 0)
		sum += m.len > 0 ? m.data[m.len - 1] : 0;
	check(sum < 1u << 30);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };
	struct keys *k;

	decode_alone(data, size);
	world_seed(data, size);
	if (world_open(&in, WORLD_JOURNAL, false, &k) < 0)
		return 0;
	calls_read(k);
	calls_settle(k);
	(void)keys_close(k);
	return 0;
}
