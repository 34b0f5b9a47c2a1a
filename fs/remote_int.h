/* SPDX-License-Identifier: MIT
 *
 * remote_int: the inside of struct remote, for remote*.c, feeder*.c, follower.c, relay.c, first.c, still.c and lockd.c.
 * Fields: [R] request thread; [N] net thread; [A] atomic; [L] under lock; [C] constant once started.
 */
#ifndef MSYNCFS_REMOTE_INT_H
#define MSYNCFS_REMOTE_INT_H

#include "core/replica/call.h"
#include "core/replica/change.h"
#include "core/replica/diff.h"
#include "core/replica/feed.h"
#include "core/replica/net.h"
#include "core/replica/primary.h"
#include "core/replica/replica.h"
#include "core/keys/cluster.h"
#include "fs/clients.h"
#include "fs/fs.h"
#include "fs/lockd.h"
#include "fs/orphans.h"
#include "fs/remote.h"
#include "fs/notify.h"
#include "fs/session.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define INBOX_BYTES   (16u << 20)       /* of frames from the primary, before its connection is paused */
#define RUNS_MAX      4096u             /* calls of remote mounts that wait for the request thread */
#define RUNS_BYTES    (32u << 20)
#define STEP_ITEMS    64u               /* taken from the inbox between two requests */
#define TICK_NET_MS   200u
#define STILL_MS      10000u            /* without a turn of the request thread: remote mounts are sent away */
#define STILL_DISK_MS 30000u            /* in one msync: likewise */
#define PEERS_TEXT_MAX 8192u            /* status of those that are fed; who does not fit is left out */
#define LEASE_MS      10000u          /* locks and holds of a remote mount that cannot be reached */

enum news { NEWS_OPENED, NEWS_FRAME, NEWS_WRITABLE, NEWS_CLOSED, NEWS_RUN, NEWS_MARK, NEWS_FENCED, NEWS_HAND_OVER, NEWS_HANDED,
	    NEWS_HELD, NEWS_TREE, NEWS_CLIENT_HERE, NEWS_CLIENT_LEFT, NEWS_CLIENT_EXPIRED, NEWS_CANCEL };

/* Something for the request thread. A call goes back to the net thread with its result: what may be needed to answer it is
 * there when it is taken, so no answer is lost for want of memory. */
struct item {
	struct item *next;
	struct net_work work;           /* NEWS_RUN: on its way back */
	struct remote *l;               /* NEWS_RUN */
	struct primary_result res;      /* NEWS_RUN */
	uint64_t mark;                  /* NEWS_RUN, run: of the notifier; what the call changed came before it */
	enum news kind;
	net_id id;
	unsigned type;                  /* of a frame; NEWS_HELD, NEWS_CLIENT_HERE: true or false; NEWS_TREE: count */
	struct primary_run run;         /* NEWS_RUN: its bytes are ours; NEWS_CLIENT_*, NEWS_CANCEL: whose */
	uint64_t number;                /* NEWS_MARK, NEWS_HELD: inode; NEWS_FENCED, NEWS_HAND_OVER: epoch; NEWS_TREE: applied */
	seq_t seq;                      /* NEWS_HAND_OVER: the last change, as far as the net thread knew */
	seq_t durable;                  /* NEWS_TREE */
	int64_t since_ms;
	uint32_t len;
	uint8_t bytes[];
};

struct queue {
	struct item *first, **end;
	size_t count, bytes;
};

/* An order to the net thread that must not be lost. */
struct lead {
	uint64_t epoch, promised, seed;
	uint8_t cluster[16];
};

struct feeder;                          /* a connection that we feed, see feeder_int.h */

struct remote {
	struct fs *fs;                  /* [C] */
	bool leads;                     /* [R] a primary; else a remote mount */
	struct keyring *ring;           /* [C] or NULL */
	struct net *net;                /* [C] */
	struct notify *notify;          /* [C] once attached */
	struct lockd *lockd;            /* [R] */
	struct clients clients;         /* [R] while `leads` */
	struct keys_where_walk walk;    /* [R] through all names, for limited keys (limit.h) */
	bool walks;                     /* [R] it is not at its end */
	bool was_primary;               /* [R] when the store was opened */
	struct fs_shared shared;        /* [C] */
	struct feed feed;               /* [C] its fields look after themselves */
	bool feeds;                     /* [R] the feed is there */
	uint8_t store[16];              /* [C] */
	uint64_t client;                /* [C] random */
	bool handing;                   /* [R] the primary no more, and not yet a remote mount */
	atomic_bool parked;             /* [A] changes wait: the primary is being handed over */

	pthread_mutex_t lock;
	struct queue inbox, runs;       /* [L] */
	bool paused;                    /* [L] the primary's connection, since the inbox was full */
	bool runs_refused;              /* [L] the net thread wants to know when there is room */
	struct history history;         /* [L] without .last */
	struct diff_job *jobs;          /* [L] */
	char peers[PEERS_TEXT_MAX];     /* [L] lines for status */
	char trouble[256];              /* [L] why there is no connection */
	int trouble_error;              /* [L] of that, negative; 0: none is known */
	unsigned trouble_lasts;         /* [L] so many times in a row it was of a kind that stays */
	char noted[512];                /* [N] what was said last of who is fed */

	_Atomic uint64_t change_bytes;  /* [A] of all changes since the start */
	_Atomic uint64_t turns;         /* [A] of the request thread; 0: it has not begun, or is ending */
	atomic_bool break_links;        /* [A] of all that are fed: somebody could not be told what it waits for */
	_Atomic uint64_t want_checkpoint;       /* [A] seq + 1 that a checkpoint must have; 0: none */
	_Atomic uint64_t peer_count;    /* [A] */
	_Atomic uint64_t synced;        /* [A] fsyncs up to here are done on all disks asked for */

	/* relay.c */
	bool relays;                    /* [R] those behind this remote mount are being fed */
	bool handed_over;               /* [R] this was the primary, and tells others where that is now */
	net_id relay_link;              /* [R] while `relays`: our own link */
	uint64_t relay_epoch;           /* [R] and its epoch */
	net_id relay_held_back;         /* [R] a welcome of this link waits until nobody is fed; 0: none */
	int64_t relay_since_ms;         /* [R] when it began for the first time; 0: not yet */
	uint64_t relay_posts;           /* [R] orders given to the net thread, */
	_Atomic uint64_t relay_done;    /* [A] and carried out there */
	_Atomic uint64_t relay_fresh_ms, relay_durable; /* [A] when this was the primary's state; what is on its disk */
	uint8_t relay_path[MSG_PATH_MAX * 16];  /* [R] whom it follows, whom that one follows..., as the net thread was told */
	uint32_t relay_path_count;      /* [R] */
	seq_t tree_applied, tree_durable;       /* [N] as the request thread was told */
	uint32_t tree_count;
	bool tree_lost;                 /* [N] a hold could not be told of */

	/* feeder*.c, still.c */
	struct net_work lead_work, cluster_work, handed_work, went_on_work, elsewhere_work;     /* [R] */
	struct lead lead;               /* [L] for the first two */
	char elsewhere[MSG_NAME_MAX + 1];       /* [L] */
	uint64_t turns_seen, disk_seen; /* [N] at the last tick, which was at looked_ms */
	uint64_t looked_ms;             /* [N] */
	uint32_t turns_ms, disk_ms;     /* [N] so long they have been the same */
	bool still;                     /* [N] too long: nobody is fed */
	struct item *spares;            /* [N] for news that must not be lost */
	unsigned spare_count;           /* [N] */
	struct item *up_closed;         /* [N] for the end of up_link */
	struct primary *primary;        /* [N] */
	struct feeder *feeders;         /* [N] */
	net_id up_link;                 /* [N] the connection to our primary */
	struct orphans orphans;         /* [N] that are not marked yet */
	uint8_t *record, *change;       /* [N] REC_MAX, CHANGE_MAX bytes */
	struct net_buf *frame;          /* [N] the last change as a frame: all replicas get the same one */
	seq_t frame_seq;

	/* follower.c */
	struct replica *replica;        /* [R] */
	struct pending *pending;        /* [R] */
	struct fs_upstream upstream;    /* [C] its way to the primary */
	net_id dialer, link;            /* [R] as the follower knows it */
	char address[300];              /* [R] that is dialed */
	char followed[300];             /* [R] of the last primary that took us; "": none yet */
	unsigned failures;              /* [R] connections in a row that were lost or refused */
	uint64_t cookie;                /* [R] */
	uint64_t streamed;              /* [R] session of the last link that streamed */
	struct diff_target *diff;       /* [R] or NULL */
	bool diff_direct, diff_applied; /* [R] */
	uint64_t comparisons;           /* [R] that were begun */
	struct queue stuck;             /* [R] frames that could not be taken yet */
	uint64_t promise_ticket, promise_epoch; /* [R] being made durable; 0: none */
	uint64_t complete_ticket;       /* [R] `incomplete` being cleared */
	uint64_t lead_ticket, lead_epoch;       /* [R] becoming the primary; 0: not */
	uint64_t hand_ticket;           /* [R] giving that up; 0: not */
	struct aside *aside;            /* [R] or NULL */
	int64_t ticked_ms;              /* [R] */
	seq_t told_durable, sync_asked; /* [R] */
	int64_t sync_asked_ms;          /* [R] */
	bool reached;                   /* [R] the first time that changes streamed */
	bool space_logged;              /* [R] */
	/* max-stale: reads are refused, and what the kernel has cached is still to be taken from it. */
	bool too_old;                   /* [R] */
	uint64_t *old;                  /* [R] inodes; NULL: none left */
	size_t old_count;

	/* remote_run.c: calls of other machines whose change this kernel has not been told of yet, oldest first */
	struct queue untold;            /* [R] */
	/* remote_run.c: own calls, left over from following, that are to be on this disk before they are answered; oldest first */
	struct queue unsynced;          /* [R] */
	/* relay.c: those that were sent on */
	struct queue forwarded;         /* [R] */
};

static inline int64_t remote_now_ms(void)
{
	return clock_boot_ms();
}

/* remote.c */
/* Request thread: begin to look where all files are, if a key of ours is limited to a directory. To be called when we lead. */
void remote_walk(struct remote *l);
/* [any] */
void remote_push(struct remote *l, struct item *item);
/* Request thread: the oldest of the inbox or of the runs, or NULL. */
struct item *remote_take(struct remote *l, struct queue *q);
struct item *remote_item(enum news kind, net_id id, const void *bytes, uint32_t len);
/* What is left of a call that was run, or sent on. */
struct item *remote_item_without_bytes(struct item *item);
void queue_init(struct queue *q);
void queue_add(struct queue *q, struct item *item);
struct item *queue_take(struct queue *q);
void queue_clear(struct queue *q);
/* Request thread: the epochs of the store, for whoever asks. */
void remote_read_history(struct remote *l);
/* [any] */
void remote_history(struct remote *l, struct history *ret);

/* The key with which this mount connects, if that is limited; else NULL. */
const struct net_key *remote_own_limit(const struct remote *l);

/* Is one of its keys limited to a directory? */
bool remote_limits_trees(const struct keyring *ring);

/* remote_run.c, request thread */
/* The oldest call of another machine that waits. False: there is none, or it finds no space yet. */
bool remote_run_next(struct remote *l);
/* Answers leave whose changes this kernel has been told of. */
void remote_release_results(struct remote *l);
/* Those own calls that were left over from following and are on disk by now. */
void remote_release_synced(struct remote *l);
/* This machine leads no more (error 0: whoever leads now is asked for them anew), or they fail. */
void remote_drop_unsynced(struct remote *l, int error);

/* remote_status.c */
/* [any] What status says of a limited key: tree:/PATH, or read-only. Long paths are cut. */
#define KEY_LIMIT_TEXT 256u
void remote_limit_text(const char *tree, char text[KEY_LIMIT_TEXT]);

/* feeder*.c */
int feeder_init(struct remote *l);
/* For net_every(). */
void feeder_tick(void *l);
void feeder_release(struct remote *l);
/* Request thread: be the primary of the epoch in force from now on. */
void feeder_lead(struct remote *l);
/* Request thread: the cluster is known. */
void feeder_cluster(struct remote *l);
/* Request thread: that this store is no primary any more is on disk. */
void feeder_handed(struct remote *l);
/* Request thread: this store had a change more when the primary was to be handed over; it is not. */
void feeder_went_on(struct remote *l);
/* Request thread: who the primary is, for those who ask here. */
void feeder_elsewhere(struct remote *l, const char *who);
/* Request thread: hand over to the remote mount of that name, or to the one that has most; told in the log. -ENOMEM. */
int feeder_switch(struct remote *l, const char *name);
/* [any] There is something new to send. */
void feeder_kick(struct remote *l);
/* Request thread: see remote_wait(). */
int feeder_wait(struct remote *l, uint64_t unique, uint32_t size, uint32_t replicas, uint32_t wait_ms);
/* Request thread: the answer to a call, which it takes over. */
void feeder_result(struct remote *l, struct item *item, const struct primary_result *res);
/* [any] Somebody who is fed could not be told what it waits for, for want of memory: all come again, and ask. */
void feeder_break(struct remote *l);
void feeder_orphan(struct remote *l, uint64_t ino, seq_t seq);
/* Request thread: to a client, what became of its lock. */
void feeder_lock(struct remote *l, const struct msg_lock *m);
/* Net thread: send what is due. */
void feeder_pump(struct remote *l);
extern const struct net_owner feeder_owner;

/* first.c */
/* At the start: wait until the store is a state of the primary. 0 or -errno, with a line said. */
int first_sync(struct remote *l);
/* [any] Will who ended a link like that do so again, whenever it is asked? */
bool first_is_lasting(const struct net_end *end);

/* still.c */
void still_look(struct remote *l);

/* relay.c */
/* Request thread: give out orders as the line to the primary is. */
void relay_step(struct remote *l, const struct replica_status *st);
/* Request thread: feed nobody. True: nobody is fed any more; else ask again. */
bool relay_stop(struct remote *l);
/* Request thread: may what this welcome begins be obeyed? False: not before those behind were let go; ask again. */
bool relay_welcome(struct remote *l, const struct msg_welcome *w);
/* Request thread: the oldest call of a client behind this mount. 0: it may be sent on, -EAGAIN: not now, else not at all. Then
 * relay_keep() takes it over, until it is answered; and news of clients. */
int relay_run(struct remote *l, const struct item *item);
void relay_keep(struct remote *l, struct item *item);
void relay_client(struct remote *l, const struct item *item);
/* Request thread: what became of such a call. */
void relay_answer(struct remote *l, uint64_t client, uint64_t session, uint64_t request, uint64_t token,
		  const struct replica_answer *a);
/* Request thread: NEWS_HELD, NEWS_TREE. */
void relay_news(struct remote *l, const struct item *item);
/* Net thread: what the primary has is told on; what those behind have is told to the request thread. */
void relay_pump(struct remote *l);
void relay_held(struct remote *l, uint64_t ino, bool held);

/* follower.c */
int follower_init(struct remote *l);
/* Where others can reach this mount, or at least a name of its machine. */
void follower_name(const struct options *o, char *name, size_t size);
/* Be a remote mount of that primary from now on. */
int follower_follow(struct remote *l, const char *address);
/* Become the primary. -EBUSY, with a text. */
int follower_promote(struct remote *l);
void follower_release(struct remote *l);
/* 0; -EAGAIN: not now. */
int follower_item(struct remote *l, struct item *item);
/* What a call that was left over from following resulted in. */
void follower_result(struct remote *l, const struct primary_run *run, const struct primary_result *res);
/* Own call `request` has made this inode, and its change was applied here. */
void follower_made(struct remote *l, uint64_t request, uint64_t ino);
/* True: there is more to do. */
bool follower_step(struct remote *l);

#endif
