/* SPDX-License-Identifier: MIT
 *
 * input: see fuzz_util.h. Also the mutator: besides what libFuzzer does to bytes it puts in whole opcodes with their
 * arguments, takes pieces out and doubles them.
 */
#include "tests/fuzz/fuzz_util.h"

uint8_t in_u8(struct input *in)
{
	return in->p < in->end ? *in->p++ : 0;
}

uint16_t in_u16(struct input *in)
{
	uint16_t v = in_u8(in);

	return (uint16_t)(v | in_u8(in) << 8);
}

uint64_t in_u64(struct input *in)
{
	uint8_t b[8];
	int i;

	for (i = 0; i < 8; i++)
		b[i] = in_u8(in);
	return get_le64(b);
}

uint64_t in_value(struct input *in)
{
	uint8_t s = in_u8(in);
	uint16_t low;

	if (s < 112)
		return s;
	switch (s % 16) {
	case 0:         return in_u16(in);
	case 1:
		low = in_u16(in);
		return low | (uint64_t)in_u16(in) << 16;
	case 2:         return in_u64(in);
	case 3:         return UINT64_MAX - in_u8(in) % 16;
	case 4:         return KEYS_SIZE_MAX - 8 + in_u8(in) % 16;
	case 5:         return INO_MAX - 8 + in_u8(in) % 16;
	case 6: case 7: return world_block(in_u8(in));
	case 8: case 9: return world_ino(in_u8(in));
	case 10:        return 1ull << in_u8(in) % 64;
	case 11:        return (KEYS_SIZE_MAX >> BLOCK_SHIFT) - 300 + in_u16(in) % 310;
	case 12:        return (1ull << 32) - 8 + in_u8(in) % 16;
	case 13:        return GROUP_BLOCKS - 8 + in_u8(in) % 16;
	case 14:        return (uint64_t)in_u16(in) << BLOCK_SHIFT;
	default:        return 2048 - 8 + in_u8(in) % 16;
	}
}

uint32_t in_bytes(struct input *in, uint8_t *buf, uint32_t max)
{
	uint32_t n = in_u8(in), i;

	/* Long values are short patterns, so that inputs stay small. */
	if (n >= 128)
		n = (n - 127) * 64;
	if (n > max)
		n = max;
	for (i = 0; i < n; i++)
		buf[i] = i < 32 ? in_u8(in) : buf[i % 32];
	return n;
}

static uint64_t step(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return *state >> 33;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	uint64_t s = seed;
	size_t at = size ? step(&s) % (size + 1) : 0, n = 1 + step(&s) % 24, i;

	switch (step(&s) % 4) {
	case 0:         /* an opcode and something for its arguments */
		if (n > max_size - size)
			break;
		memmove(data + at + n, data + at, size - at);
		for (i = 0; i < n; i++)
			data[at + i] = (uint8_t)(step(&s) % 3 ? step(&s) % 112 : step(&s));
		return size + n;
	case 1:         /* a piece less */
		if (n > size - at)
			n = size - at;
		memmove(data + at, data + at + n, size - at - n);
		return size - n ? size - n : LLVMFuzzerMutate(data, size, max_size);
	case 2:         /* a piece twice */
		if (n > size - at)
			n = size - at;
		if (n > max_size - size)
			break;
		memmove(data + at + n, data + at, size - at);
		return size + n;
	default:
		break;
	}
	return LLVMFuzzerMutate(data, size, max_size);
}

uint8_t in_attr(struct input *in, struct keys_attr *a)
{
	uint8_t what = in_u8(in);

	if (what & 1) {
		uint32_t type = in_u8(in) & 15;

		a->mode = type << 12 | (in_u16(in) & 07777);
	}
	if (what & 2)
		a->nlink = (uint32_t)in_value(in);
	if (what & 4)
		a->size = in_value(in);
	if (what & 8)
		a->aux = in_value(in);
	if (what & 16)
		a->blocks = in_value(in);
	if (what & 32)
		a->flags = in_u8(in);
	return what;
}
