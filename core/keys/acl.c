/* SPDX-License-Identifier: MIT
 *
 * acl: POSIX ACL arithmetic, after POSIX.1e draft 17 and acl(5). The bytes are those of the xattr: a 32-bit version (2),
 * then entries of 16-bit tag, 16-bit permissions, 32-bit id, ordered by tag.
 */
#include "core/keys/keys_int.h"

enum {
	TAG_USER_OBJ = 1, TAG_USER = 2, TAG_GROUP_OBJ = 4, TAG_GROUP = 8, TAG_MASK = 16, TAG_OTHER = 32,
};
#define ACL_HEADER 4u
#define ACL_ENTRY  8u

static size_t acl_count(size_t size)
{
	return (size - ACL_HEADER) / ACL_ENTRY;
}

static unsigned tag(const uint8_t *acl, size_t i)
{
	return get_le16(acl + ACL_HEADER + i * ACL_ENTRY);
}

static unsigned perm(const uint8_t *acl, size_t i)
{
	return get_le16(acl + ACL_HEADER + i * ACL_ENTRY + 2);
}

static void set_perm(uint8_t *acl, size_t i, unsigned p)
{
	put_le16(acl + ACL_HEADER + i * ACL_ENTRY + 2, (uint16_t)(p & 7));
}

int acl_check(const uint8_t *acl, size_t size)
{
	unsigned seen = 0, last = 0;
	bool named = false;
	size_t i;

	if (size < ACL_HEADER || (size - ACL_HEADER) % ACL_ENTRY != 0 || get_le32(acl) != 2 || size > ACL_SIZE_MAX)
		return -EINVAL;
	for (i = 0; i < acl_count(size); i++) {
		unsigned t = tag(acl, i);

		if (perm(acl, i) > 7 || t < last)
			return -EINVAL;
		switch (t) {
		case TAG_USER_OBJ: case TAG_GROUP_OBJ: case TAG_MASK: case TAG_OTHER:
			if (seen & t)
				return -EINVAL;
			break;
		case TAG_USER: case TAG_GROUP:
			named = true;
			break;
		default:
			return -EINVAL;
		}
		seen |= t;
		last = t;
	}
	if (acl_count(size) == 0)
		return 0;
	if ((seen & (TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER)) != (TAG_USER_OBJ | TAG_GROUP_OBJ | TAG_OTHER))
		return -EINVAL;
	return named && !(seen & TAG_MASK) ? -EINVAL : 0;
}

uint32_t acl_mode(const uint8_t *acl, size_t size, uint32_t mode, bool *ret_plain)
{
	unsigned user = 0, group = 0, other = 0;
	bool plain = true;
	size_t i;

	for (i = 0; i < acl_count(size); i++) {
		switch (tag(acl, i)) {
		case TAG_USER_OBJ:
			user = perm(acl, i);
			break;
		case TAG_GROUP_OBJ:
			if (plain)
				group = perm(acl, i);
			break;
		case TAG_MASK:
			group = perm(acl, i);
			plain = false;
			break;
		case TAG_OTHER:
			other = perm(acl, i);
			break;
		default:
			plain = false;
		}
	}
	/* A mask stands behind the group's entry and counts instead of it. */
	*ret_plain = plain;
	return (mode & ~0777u) | user << 6 | group << 3 | other;
}

/* The entry that the group bits of a mode mean: the mask if there is one. */
static size_t group_entry(const uint8_t *acl, size_t size)
{
	size_t i, found = 0;

	for (i = 0; i < acl_count(size); i++)
		if (tag(acl, i) == TAG_MASK || (tag(acl, i) == TAG_GROUP_OBJ && found == 0))
			found = i;
	return found;
}

void acl_chmod(uint8_t *acl, size_t size, uint32_t mode)
{
	size_t i;

	for (i = 0; i < acl_count(size); i++) {
		if (tag(acl, i) == TAG_USER_OBJ)
			set_perm(acl, i, mode >> 6);
		else if (tag(acl, i) == TAG_OTHER)
			set_perm(acl, i, mode);
	}
	if (acl_count(size) > 0)
		set_perm(acl, group_entry(acl, size), mode >> 3);
}

uint32_t acl_create(uint8_t *acl, size_t size, uint32_t mode, bool *ret_plain)
{
	size_t i, g = group_entry(acl, size);

	/* The mode asked for limits what the default ACL gives, and the other way round. */
	for (i = 0; i < acl_count(size); i++) {
		if (tag(acl, i) == TAG_USER_OBJ)
			set_perm(acl, i, perm(acl, i) & mode >> 6);
		else if (tag(acl, i) == TAG_OTHER)
			set_perm(acl, i, perm(acl, i) & mode);
		else if (i == g)
			set_perm(acl, i, perm(acl, i) & mode >> 3);
	}
	return acl_mode(acl, size, mode, ret_plain);
}
