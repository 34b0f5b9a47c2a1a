/* SPDX-License-Identifier: MIT
 *
 * remote_status: what status says of a mount's links. Request thread; what the net thread knows of those that are fed it has
 * written down for us (feeder.c).
 */
#include "fs/remote_int.h"

#include "fs/repeat.h"
#include "fs/text.h"

#include <stdio.h>
#include <string.h>

void remote_limit_text(const char *tree, char text[KEY_LIMIT_TEXT])
{
	(void)snprintf(text, KEY_LIMIT_TEXT, "%s%s", tree != NULL ? "tree:" : "read-only", tree != NULL ? tree : "");
	/* What a shell would not take as it is. */
	for (char *c = text; *c != '\0'; c++)
		if (*c == '\'' || (unsigned char)*c < ' ')
			*c = '?';
}

static void put_follower(struct remote *l, struct text *t)
{
	static const char *const states[] = { "down", "hello", "aside", "diff", "stream", "leading", "leads" };
	struct replica_status st;
	struct diff_progress p = { 0 };
	char trouble[sizeof l->trouble];

	replica_status(l->replica, (uint64_t)remote_now_ms(), &st);
	if (l->diff != NULL)
		diff_target_progress(l->diff, &p);
	pthread_mutex_lock(&l->lock);
	memcpy(trouble, l->trouble, sizeof trouble);
	pthread_mutex_unlock(&l->lock);
	for (char *c = trouble; *c != '\0'; c++)
		if (*c == '\'')
			*c = '?';
	text_put(t, "from='%s'\nlink_state=%s\nlink_trouble='%s'\n", l->address, states[st.state],
		 st.state == REPLICA_STREAM ? "" : trouble);
	text_put(t, "primary_seq=%llu\nprimary_durable_seq=%llu\nlag_changes=%llu\n", (unsigned long long)st.primary_last,
		 (unsigned long long)st.primary_durable,
		 (unsigned long long)(st.primary_last > st.applied ? st.primary_last - st.applied : 0));
	text_put(t, "stale_seconds=%llu.%03llu\nmax_stale_seconds=%u\nreads=%s\n", (unsigned long long)st.stale_ms / 1000,
		 (unsigned long long)st.stale_ms % 1000, l->fs->options->max_stale_s, remote_may_read(l) < 0 ? "refused" : "ok");
	text_put(t, "open_calls=%u\nholds=%u\nsync_total_bytes=%llu\nsync_done_bytes=%llu\ncomparisons=%llu\n", st.open_calls, st.holds,
		 (unsigned long long)p.total_bytes, (unsigned long long)p.done_bytes, (unsigned long long)l->comparisons);
}

static void put_link(struct remote *l, struct text *t)
{
	struct net_stat ns;

	if (l->link == 0 || net_stat(l->net, l->link, &ns) < 0)
		return;
	text_put(t, "link_bytes_received=%llu\nlink_bytes_sent=%llu\nlink_round_trip_seconds=%llu.%06llu\n",
		 (unsigned long long)ns.bytes_in, (unsigned long long)ns.bytes_out, (unsigned long long)ns.rtt_ns / 1000000000,
		 (unsigned long long)ns.rtt_ns % 1000000000 / 1000);
}

void remote_status(struct remote *l, struct text *t)
{
	char limit[KEY_LIMIT_TEXT];
	uint64_t lag_ns;
	size_t waiting;

	if (l == NULL)
		return;
	if (!l->leads)
		put_follower(l, t);
	if (l->leads && remote_limits_trees(l->ring))
		text_put(t, "limits=%s\n", l->walks ? "looking" : "ready");
	if (remote_own_limit(l) != NULL && !l->leads) {
		remote_limit_text(remote_own_limit(l)->tree, limit);
		text_put(t, "key_limit='%s'\n", limit);
	}
	pthread_mutex_lock(&l->lock);
	text_put(t, "%s", l->peers);
	pthread_mutex_unlock(&l->lock);
	put_link(l, t);
	repeat_status(l->fs->repeat, t);
	notify_lag(l->notify, &waiting, &lag_ns);
	text_put(t, "relay=%s\nclients_forgotten=%llu\npeers=%llu\n", l->relays ? "on" : "off", (unsigned long long)l->clients.forgot,
		 (unsigned long long)atomic_load(&l->peer_count));
	text_put(t, "notify_waiting=%zu\nnotify_lag_seconds=%llu.%06llu\n", waiting, (unsigned long long)lag_ns / 1000000000,
		 (unsigned long long)lag_ns % 1000000000 / 1000);
}
