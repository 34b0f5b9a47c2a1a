/* SPDX-License-Identifier: MIT
 *
 * clients: of which remote mounts the store keeps the last calls (core/keys/cluster.h), and when that may end. A call that is
 * sent again is made once because its client's item says so; so the item of a mount that is gone may go only when none of
 * its calls can come again:
 *
 * (E1) A client sends no call again later than REPLICA_RESEND_MS after it was made, by a clock that goes on in suspend.
 * (E2) The primary forgets a client that was not connected, itself or through a relay, for CLIENTS_KEEP_MS of its own time as the
 *      primary without a break: what it knows of absences is in memory only. That is much more than (E1).
 * (E3) One that was forgotten and comes all the same (the clock of a virtual machine stood still) gets EIO for the calls that
 *      it may have sent before: nobody knows whether they were made. The last CLIENTS_FORGOTTEN of them are remembered.
 *
 * Request thread of a primary only. Times are milliseconds of a clock that goes on in suspend.
 */
#ifndef MSYNCFS_CLIENTS_H
#define MSYNCFS_CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENTS_KEEP_MS   (3ull * 24 * 3600 * 1000)
#define CLIENTS_LOOK_MS   (600ull * 1000)       /* how often all items are looked through */
#define CLIENTS_FORGOTTEN 4096u

struct keys;

struct client_seen {
	uint64_t client;
	uint64_t since_ms;              /* it is gone since, at the latest */
	bool here;
};

struct client_forgotten {
	uint64_t client;                /* 0: unused */
	uint64_t until;                 /* calls below this number may have been made; 0: it was not heard again yet */
};

struct clients {
	struct keys *keys;
	struct client_seen *seen;       /* by client, ascending */
	size_t count, room;
	uint64_t looked_ms, next;       /* 0 and 0: begin to look now; next: goes on at this client */
	bool looking;
	struct client_forgotten forgotten[CLIENTS_FORGOTTEN];
	unsigned forgotten_next;
	uint64_t forgot;                /* how many */
};

/* This store is the primary from now on. */
void clients_init(struct clients *c, struct keys *keys, uint64_t now_ms);
void clients_release(struct clients *c);
/* It is connected; it has been gone for a lease. Without memory it counts as gone since it is looked at next, which is later. */
void clients_here(struct clients *c, uint64_t client);
void clients_gone(struct clients *c, uint64_t client, uint64_t now_ms);
/* Between requests: look through some items, forget who is due. */
void clients_step(struct clients *c, uint64_t now_ms);
/* (E3) Of a call that the store does not know. low: the lowest number that its client waits for. */
bool clients_unsure(struct clients *c, uint64_t client, uint64_t request, uint64_t low);

#endif
