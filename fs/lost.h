/* SPDX-License-Identifier: MIT
 *
 * lost: what happens when a page of the store file cannot be had (SIGBUS): somebody cut the file
 * short, or the disk cannot read it. core/store/map.h says what becomes of the store then.
 */
#ifndef MSYNCFS_LOST_H
#define MSYNCFS_LOST_H

/* Take the signal: from now on map_guard() ends with -EIO instead. Elsewhere such a page still ends
 * the process, as it would without. */
void lost_catch(void);

#endif
