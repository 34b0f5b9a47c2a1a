/* SPDX-License-Identifier: MIT
 *
 * net_mem: where OpenSSL's memory comes from. It does not survive that its first allocations are refused: what could not be made
 * is not there, and is used all the same (OpenSSL 3.0: a lock that is NULL in RAND_get0_private()), and who looks for a better time
 * to begin finds that it begins once in a process only. So when malloc() refuses, it gets from a reserve, which is address space that costs
 * nothing until then; its making is what may fail, cleanly, before OpenSSL is asked for anything. New links are refused
 * as long as the reserve could not bring them through.
 *
 * Any thread. One short lock, under which no system call is made but that which makes the reserve. A piece of the reserve is [header | bytes], one behind the other;
 * neighbours that are free become one when somebody looks for room.
 */
#include "core/replica/net_int.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <openssl/crypto.h>

#define RESERVE_BYTES ((size_t)16 << 20)
#define RESERVE_KEPT  ((size_t)8 << 20)         /* for links that there are: new ones must leave it */

/* Before all that OpenSSL has, from here or from malloc(). */
struct piece {
	size_t size;                    /* its bytes behind this, a multiple of 16 */
	size_t used;                    /* in the reserve: 0 or 1 */
};
_Static_assert(sizeof(struct piece) == 16, "what follows is aligned as malloc()'s");

static struct {
	pthread_mutex_t lock;
	bool tried;
	uint8_t *base;                  /* NULL: none */
	size_t used;                    /* bytes, headers included */
} reserve = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool in_reserve(const struct piece *p)
{
	const uint8_t *at = (const uint8_t *)p;

	return reserve.base && at >= reserve.base && at < reserve.base + RESERVE_BYTES;
}

static struct piece *next_of(struct piece *p)
{
	uint8_t *at = (uint8_t *)(p + 1) + p->size;

	return at < reserve.base + RESERVE_BYTES ? (struct piece *)(void *)at : NULL;
}

/* Under the lock: of a free piece that is large enough, the beginning. */
static void split(struct piece *p, size_t size)
{
	struct piece *rest;

	if (p->size - size < 2 * sizeof *p)
		return;
	rest = (struct piece *)(void *)((uint8_t *)(p + 1) + size);
	*rest = (struct piece){ .size = p->size - size - sizeof *p };
	p->size = size;
}

static struct piece *take_reserve(size_t size)
{
	struct piece *p, *after;

	(void)pthread_mutex_lock(&reserve.lock);
	for (p = (struct piece *)(void *)reserve.base; p; p = next_of(p)) {
		if (p->used)
			continue;
		while ((after = next_of(p)) != NULL && !after->used)
			p->size += sizeof *after + after->size;
		if (p->size < size)
			continue;
		split(p, size);
		p->used = 1;
		reserve.used += sizeof *p + p->size;
		break;
	}
	(void)pthread_mutex_unlock(&reserve.lock);
	return p;
}

static void *mem_alloc(size_t size, const char *file, int line)
{
	size_t room = align_up(max_u64(size, 1), 16);
	struct piece *p;

	(void)file;
	(void)line;
	if (room < size || room > RESERVE_BYTES * 64)
		return NULL;
	p = malloc(sizeof *p + room);
	if (p)
		p->size = room;
	else
		p = take_reserve(room);
	/* cppcheck-suppress memleak ; it is found again in front of what is given */
	return p ? p + 1 : NULL;
}

static void mem_free(void *bytes, const char *file, int line)
{
	struct piece *p = bytes ? (struct piece *)bytes - 1 : NULL;

	(void)file;
	(void)line;
	if (!p || !in_reserve(p)) {
		free(p);
		return;
	}
	(void)pthread_mutex_lock(&reserve.lock);
	p->used = 0;
	reserve.used -= sizeof *p + p->size;
	(void)pthread_mutex_unlock(&reserve.lock);
}

static void *mem_realloc(void *bytes, size_t size, const char *file, int line)
{
	struct piece *p = bytes ? (struct piece *)bytes - 1 : NULL;
	void *more;

	if (p && size > 0 && size <= p->size)
		return bytes;
	more = size > 0 ? mem_alloc(size, file, line) : NULL;
	if (size > 0 && !more)
		return NULL;
	if (p && more)
		memcpy(more, bytes, min_u64(p->size, size));
	mem_free(bytes, file, line);
	return more;
}

int tls_memory(void)
{
	int r = 0;

	(void)pthread_mutex_lock(&reserve.lock);
	if (!reserve.tried) {
		void *base = mmap(NULL, RESERVE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		reserve.tried = base != MAP_FAILED;
		if (base == MAP_FAILED) {
			r = -ENOMEM;
		} else if (CRYPTO_set_mem_functions(mem_alloc, mem_realloc, mem_free) == 1) {
			*(struct piece *)base = (struct piece){ .size = RESERVE_BYTES - sizeof(struct piece) };
			reserve.base = base;
		} else {
			/* Somebody else in this program has begun with OpenSSL: then it is theirs to see to. */
			(void)munmap(base, RESERVE_BYTES);
		}
	}
	(void)pthread_mutex_unlock(&reserve.lock);
	return r;
}

bool tls_memory_left(void)
{
	bool left;

	(void)pthread_mutex_lock(&reserve.lock);
	left = reserve.used <= RESERVE_BYTES - RESERVE_KEPT;
	(void)pthread_mutex_unlock(&reserve.lock);
	return left;
}
