/* SPDX-License-Identifier: MIT
 *
 * session: see session.h. Requests are read into a buffer of our own and handed to libfuse for
 * decoding, so that we see what libfuse 3.14 does not pass on: write flags, and requests that it
 * has no handler for. Replies come back through session_writev().
 *
 * FUSE_SYNCFS: the kernel sends it to fuseblk and virtiofs servers only (fc->sync_fs, Linux 6.18),
 * since a common user's server could stall sync(2). On a mount of type fuse syncfs(2) and `sync -f`
 * therefore return without asking us, and there is no other request that they cause. What they do
 * not do, the sync interval does. sync(2) is different: it also writes back the file system that
 * the store lies on, and with it every dirty page of the mapping. Should a kernel send FUSE_SYNCFS,
 * it is answered below, as an fsync is.
 */
#include "fs/session.h"

#include "core/base.h"
#include "core/store/map.h"
#include "fs/device.h"
#include "fs/fs.h"
#include "fs/lockd.h"
#include "fs/remote.h"
#include "fs/log.h"
#include "fs/mnt.h"
#include "fs/ops.h"
#include "fs/repeat.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_BYTES    (FS_WRITE_MAX + 4096u)  /* the head of a request has at most 4096 bytes */
#define BUFFER_SLACK    64u             /* zeros behind it: a name always ends */
#define PARK_LIMIT_S    30
#define PARK_MAX_BYTES  (64u << 20)     /* with that much parked no further request is read */
#define ATTENTION_MS    10              /* how often what waits is looked at without being woken */
#define REMOTE_MS         50              /* the same, of other machines */
#define TICK_MS         250             /* housekeeping of an idle mount with changes */
#define REAP_EVERY      4u              /* requests between slices if the mount is never idle */
#define STOP_GRACE_MS   1000            /* for files that are still open when told to stop */
#define READ_TRIES      100             /* failed reads in a row before the mount is given up */
#define READ_PAUSE_NS   10000000

struct parked {
	struct parked *next;
	int64_t give_up_ms;
	size_t size;
	char bytes[];
};

struct session {
	char *buffer;
	int event_fd;
	timer_t tick;
	bool tick_made, ticking;
	atomic_bool attention; /* [any] somebody waits: session_wake() is worth a system call */
	atomic_bool woken; /* [any] the eventfd was written to and is not read yet: one wake-up is enough */
	struct parked *parked, **parked_end;
	size_t parked_count, parked_bytes;
	int64_t retry_ms;               /* when the parked requests were last tried */
	unsigned since_reap;
	bool was_woken, reap_waits, failed_logged;
	bool remote_more;                 /* there is more of other machines to do at once */
	bool told;                      /* ready() was called */
	void (*ready)(struct fs *fs);
	unsigned read_errors;           /* in a row */
	bool stopping;
	pthread_t stopper;
	atomic_bool detached;           /* [any] the stopper has finished */
	int64_t detached_ms;
	int error;                      /* what broke the loop */
};

static volatile sig_atomic_t stop_signal;
static timer_t signal_tick;
static volatile sig_atomic_t signal_tick_made;

/* ---- Signals and the tick ---- */

static void set_tick(timer_t timer, long ms)
{
	struct itimerspec every = { .it_interval = { ms / 1000, ms % 1000 * 1000000 } };

	every.it_value = every.it_interval;
	timer_settime(timer, 0, &every, NULL);
}

/* Interrupts the read of the request thread, which has nothing else to be interrupted. */
static void on_tick(int sig)
{
	(void)sig;
}

/* A signal may come just before the read that it is to interrupt. So it starts the tick, which
 * comes again. */
static void on_stop(int sig)
{
	stop_signal = sig;
	if (signal_tick_made)
		set_tick(signal_tick, ATTENTION_MS);
}

static void fill_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGALRM);
}

void session_block_signals(void)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	sigset_t set;

	sigaction(SIGPIPE, &ignore, NULL);
	fill_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void take_signals(void)
{
	struct sigaction tick = { .sa_handler = on_tick }, stop = { .sa_handler = on_stop };
	sigset_t set;

	/* No SA_RESTART: a read is to return. */
	sigaction(SIGALRM, &tick, NULL);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGHUP, &stop, NULL);
	fill_signals(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int session_init(struct fs *fs)
{
	struct session *s = calloc(1, sizeof *s);
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };

	if (s == NULL)
		return -ENOMEM;
	fs->session = s;
	s->parked_end = &s->parked;
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->event_fd < 0)
		return -errno;
	s->buffer = calloc(1, BUFFER_BYTES + BUFFER_SLACK);
	if (s->buffer == NULL)
		return -ENOMEM;
	if (timer_create(CLOCK_MONOTONIC, &event, &s->tick) < 0)
		return -errno;
	s->tick_made = true;
	signal_tick = s->tick;
	signal_tick_made = 1;
	return 0;
}

void session_release(struct fs *fs)
{
	struct session *s = fs->session;
	struct parked *p;

	if (s == NULL)
		return;
	if (s->tick_made) {
		signal_tick_made = 0;
		timer_delete(s->tick);
	}
	while ((p = s->parked) != NULL) {
		s->parked = p->next;
		free(p);
	}
	if (s->event_fd >= 0)
		close(s->event_fd);
	free(s->buffer);
	free(s);
	fs->session = NULL;
}

void session_wake(struct fs *fs)
{
	const uint64_t one = 1;

	/* The counter cannot overflow, and what is lost here is found at the next look,
	 * ATTENTION_MS later. Who finds `woken` set is not lost: it is cleared behind the read and before the look. */
	if (atomic_load_explicit(&fs->session->attention, memory_order_acquire) &&
	    !atomic_exchange(&fs->session->woken, true) &&
	    write(fs->session->event_fd, &one, sizeof one) < 0)
		return;
}

/* The eventfd can be read. */
static void take_wake(struct session *s)
{
	uint64_t events;

	if (read(s->event_fd, &events, sizeof events) > 0)
		s->was_woken = true;
	/* An exchange, so that what was done before a session_wake() that found it set is seen now. */
	(void)atomic_exchange(&s->woken, false);
}

void session_wait(struct fs *fs, int ms)
{
	struct session *s = fs->session;
	struct pollfd p = { .fd = s->event_fd, .events = POLLIN };

	if (!atomic_exchange(&s->attention, true))
		return;         /* what came before nobody would have been woken for */
	if (poll(&p, 1, ms) > 0)
		take_wake(s);
}

/* The kernel answers FUSE_NOTIFY_RETRIEVE with a request, which stands behind all that are waiting for us; asked for nothing of
 * the root, it looks at no page, and waits for no lock. RELEASE is among those: a close() or an exit that a program has seen the
 * end of has put it there. (It is held back while max_background such requests wait for us, or a read ahead of that file; those we
 * answer at once.) */
int session_barrier(struct fs *fs, uint64_t number)
{
	struct fuse_notify_retrieve_out out = { .notify_unique = number, .nodeid = FUSE_ROOT_ID };
	struct fuse_out_header head = { .len = sizeof head + sizeof out, .error = FUSE_NOTIFY_RETRIEVE };
	struct iovec iov[2] = { { &head, sizeof head }, { &out, sizeof out } };

	return device_notify(fs->fd, iov, 2);
}

uint64_t session_parked(const struct fs *fs)
{
	return fs->session->parked_count;
}

bool session_detached(const struct fs *fs)
{
	return fs->session->stopping && atomic_load(&fs->session->detached);
}

/* ---- Replies ---- */

/* What libfuse 3.14 cannot say in the reply to INIT. HANDLE_KILLPRIV_V2: we drop setuid, setgid and
 * capabilities when a request says so; without it each write would first cost a GETXATTR of
 * security.capability. SETXATTR_EXT would change the shape of a request that libfuse decodes. */
static void amend_init(struct fs *fs, struct iovec *iov, int count)
{
	const struct fuse_init_in *in = (const void *)(fs->request + 1);
	const struct fuse_out_header *header = iov[0].iov_base;
	struct fuse_init_out *out;

	if (count < 2 || header->error != 0 ||
	    iov[1].iov_len < offsetof(struct fuse_init_out, max_background))
		return;
	out = iov[1].iov_base;
	if ((in->flags & FUSE_HANDLE_KILLPRIV_V2) != 0)
		out->flags |= FUSE_HANDLE_KILLPRIV_V2;
	out->flags &= ~(uint32_t)FUSE_SETXATTR_EXT;
}

static ssize_t session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *header = iov[0].iov_base;
	struct fs *fs = userdata;
	size_t len = 0;
	int r;

	for (int i = 0; i < count; i++)
		len += iov[i].iov_len;
	if (header->unique == 0) {
		r = device_notify(fd, iov, count);
	} else {
		/* libfuse frees the request when we return. */
		fs->req = NULL;
		if (fs->hold != NULL) {
			defer_add(fs->hold, fs->hold_seq, iov, count);
			return (ssize_t)len;
		}
		if (fs->request != NULL && fs->request->opcode == FUSE_INIT)
			amend_init(fs, iov, count);
		r = device_reply(fd, iov, count);
		/* Not answered at the beginning, or with an error, the kernel refuses all that comes after. */
		if (fs->request != NULL && fs->request->opcode == FUSE_INIT && (r < 0 || header->error != 0))
			fs->session->error = r < 0 ? r : header->error;
	}
	/* A page of the mapping: if the file was cut short, the syncer finds out. */
	if (r == -EFAULT)
		store_sync_request(fs->store);
	errno = -r;
	return r < 0 ? -1 : (ssize_t)len;
}

/* libfuse wants it, but never reads: session_run() does. */
static ssize_t session_read(int fd, void *buffer, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buffer, size);
}

int session_attach(struct fs *fs)
{
	static const struct fuse_custom_io io = { .writev = session_writev, .read = session_read };
	int r;

	/* No splice functions: with them libfuse would not offer splice, which costs more than it
	 * saves here. */
	fs->fd = fuse_session_fd(fs->fuse);
	r = fuse_session_custom_io(fs->fuse, &io, fs->fd);
	return r < 0 ? r : 0;
}

static void reply_raw(struct fs *fs, int error)
{
	struct fuse_out_header out = { .len = sizeof out,
				       .error = -error,
				       .unique = fs->request->unique };
	struct iovec iov = { &out, sizeof out };

	session_writev(fs->fd, &iov, 1, fs);
}

/* ---- Requests ---- */

/* A program that waits wants out. On this machine nothing waits for long but what must: ENOSYS makes
 * the kernel stop sending these. A call to another machine may; nobody waits for the answer to this. */
static void interrupt(struct fs *fs, const struct fuse_in_header *in)
{
	const struct fuse_interrupt_in *which = (const void *)(in + 1);

	if (fs->pending == NULL && !fs->cluster_locks) {
		reply_raw(fs, ENOSYS);
		return;
	}
	if (in->len < sizeof *in + sizeof *which)
		return;
	if (fs->cluster_locks && lockd_interrupt(remote_lockd(fs->remote), which->unique))
		return;
	if (fs->pending != NULL)
		(void)pending_interrupt(fs->pending, which->unique);
}

/* FORGETs have no answer, so none may be lost for want of memory, which libfuse would ask for. */
static void forget(struct fs *fs, const struct fuse_in_header *in)
{
	const struct fuse_forget_in *one = (const void *)(in + 1);
	const struct fuse_batch_forget_in *batch = (const void *)(in + 1);
	const struct fuse_forget_one *each = (const void *)(batch + 1);

	if (in->opcode == FUSE_FORGET && in->len >= sizeof *in + sizeof *one)
		ops_forget(fs, in->nodeid, one->nlookup);
	if (in->opcode != FUSE_BATCH_FORGET || in->len < sizeof *in + sizeof *batch)
		return;
	for (uint32_t i = 0; i < batch->count && in->len >= (const char *)(each + i + 1) - (const char *)in; i++)
		ops_forget(fs, each[i].nodeid, each[i].nlookup);
}

/* Have one request answered. False: it found no space, and is to be parked. */
static bool process(struct fs *fs, char *bytes, size_t size)
{
	struct fuse_buf buf = { .mem = bytes, .size = size };
	const struct fuse_in_header *in = (const void *)bytes;

	fs->request = in;
	fs->req = NULL;
	fs->hold = NULL;
	fs->again = false;
	switch (in->opcode) {
	case FUSE_INTERRUPT:
		interrupt(fs, in);
		break;
	case FUSE_FORGET: case FUSE_BATCH_FORGET:
		forget(fs, in);
		break;
	case FUSE_NOTIFY_REPLY:
		if (fs->cluster_locks)
			lockd_barrier(remote_lockd(fs->remote), in->unique);
		break;
	case FUSE_SYNCFS:
		reply_raw(fs, ops_hold_durable(fs));
		break;
	default:
		if (fs->repeat != NULL && repeat_answer(fs->repeat, in))
			break;
		if (fs->options->max_stale_s != 0 && ops_is_too_old(fs, in))
			reply_raw(fs, ESTALE);
		else
			fuse_session_process_buf(fs->fuse, &buf);
	}
	/* The store may have got there before the reply was in the queue. */
	if (fs->hold != NULL)
		defer_run(fs->hold);
	fs->hold = NULL;
	fs->request = NULL;
	return !fs->again;
}

static void drop_parked(struct session *s)
{
	struct parked *p = s->parked;

	s->parked = p->next;
	if (s->parked == NULL)
		s->parked_end = &s->parked;
	s->parked_count--;
	s->parked_bytes -= p->size;
	free(p);
}

/* Keep a request aside. Without memory for that it is answered now. */
static void park(struct fs *fs, char *bytes, size_t size)
{
	struct session *s = fs->session;
	struct parked *p = malloc(sizeof *p + size + BUFFER_SLACK);

	if (p == NULL) {
		fs->last_try = true;
		process(fs, bytes, size);
		fs->last_try = false;
		return;
	}
	p->next = NULL;
	p->size = size;
	p->give_up_ms = clock_mono_ms() + PARK_LIMIT_S * 1000;
	memcpy(p->bytes, bytes, size);
	memset(p->bytes + size, 0, BUFFER_SLACK);
	*s->parked_end = p;
	s->parked_end = &p->next;
	s->parked_count++;
	s->parked_bytes += size;
}

/* Begin the parked requests anew, oldest first, as long as they succeed. */
static void retry_parked(struct fs *fs)
{
	struct session *s = fs->session;
	struct parked *p;
	bool done = true;

	s->retry_ms = clock_mono_ms();
	while (done && (p = s->parked) != NULL) {
		/* A slow disk is no full one. */
		fs->last_try = s->retry_ms >= p->give_up_ms && !store_is_writing(fs->store);
		done = process(fs, p->bytes, p->size);
		fs->last_try = false;
		if (done)
			drop_parked(s);
	}
}

/* The request in hand was left half-way, since a page of the store cannot be had: it is answered
 * here. If that was done before (atime comes after the reply), the kernel does not know it any
 * more. */
static void end_request(struct fs *fs)
{
	struct session *s = fs->session;

	fs->hold = NULL;
	fs->last_try = false;
	if (fs->req != NULL)
		fuse_reply_err(fs->req, EIO);
	else if (fs->request != NULL)
		reply_raw(fs, EIO);
	if (s->parked != NULL && fs->request == (const void *)s->parked->bytes)
		drop_parked(s);
	fs->request = NULL;
}

/* Read and answer one request. 0, or -errno: the loop is over. */
static int read_failed(struct session *s, int error)
{
	const struct timespec pause = { .tv_nsec = READ_PAUSE_NS };

	/* ENODEV: unmounted. ECONNABORTED: the connection was cut. */
	if (error == EINTR)
		return 0;
	if (error == ENODEV || error == ECONNABORTED || ++s->read_errors >= READ_TRIES)
		return -error;
	/* ENOENT: that request was taken back. All else may pass (no memory), or may not. */
	if (error != ENOENT)
		nanosleep(&pause, NULL);
	return 0;
}

static int read_request(struct fs *fs)
{
	struct session *s = fs->session;
	const struct fuse_in_header *in = (const void *)s->buffer;
	ssize_t n = read(fs->fd, s->buffer, BUFFER_BYTES);

	/* The device has no end. */
	if (n <= 0)
		return read_failed(s, n < 0 ? errno : EIO);
	s->read_errors = 0;
	if ((size_t)n < sizeof *in || in->len != (size_t)n) {
		log_error("a request of %zd bytes says it has %u, ignoring", n,
			  (size_t)n < sizeof *in ? 0 : in->len);
		return 0;
	}
	memset(s->buffer + n, 0, BUFFER_SLACK);
	if (in->opcode < FS_OPCODES)
		fs->requests[in->opcode]++;
	if (!process(fs, s->buffer, (size_t)n))
		park(fs, s->buffer, (size_t)n);
	return 0;
}

void session_refuse(struct fs *fs)
{
	struct session *s = fs->session;
	struct pollfd p = { .fd = fs->fd, .events = POLLIN };
	const struct fuse_in_header *in = (const void *)s->buffer;
	ssize_t n;

	for (; s->parked != NULL; drop_parked(s)) {
		fs->request = (const void *)s->parked->bytes;
		reply_raw(fs, EIO);
	}
	if (poll(&p, 1, ATTENTION_MS) > 0 && (p.revents & POLLIN) != 0) {
		n = read(fs->fd, s->buffer, BUFFER_BYTES);
		fs->request = in;
		if (n >= (ssize_t)sizeof *in && in->opcode != FUSE_FORGET && in->opcode != FUSE_BATCH_FORGET &&
		    in->opcode != FUSE_INTERRUPT)
			reply_raw(fs, EIO);
	} else if (p.revents != 0) {
		usleep(ATTENTION_MS * 1000);
	}
	fs->request = NULL;
}

/* ---- The loop ---- */

/* Wait until there is a request or something else to do. True: read a request, even if that has to
 * wait. */
static bool wait_request(struct fs *fs)
{
	struct session *s = fs->session;
	/* Without a connection requests are read nevertheless: reads go on, changes are refused. */
	bool full = fs->pending != NULL && fs->pending->linked && pending_is_full(fs->pending);
	bool waiting = full || s->parked != NULL || !defer_is_empty(&fs->checkpoint);
	bool reap = reaper_has_work(fs);
	struct pollfd fds[2] = { { .fd = fs->fd, .events = POLLIN },
				 { .fd = s->event_fd, .events = POLLIN } };
	int n;

	/* The ordinary case. Polling for a while before going to sleep would be put here. */
	atomic_store_explicit(&s->attention, waiting || s->reap_waits || fs->remote != NULL, memory_order_release);
	if (!waiting && !reap && !s->stopping && fs->remote == NULL)
		return true;
	if (s->parked_bytes >= PARK_MAX_BYTES || full)
		fds[0].fd = -1;
	s->was_woken = false;
	n = poll(fds, 2, s->remote_more || (reap && !s->reap_waits) ? 0 : waiting || s->reap_waits || s->stopping ? ATTENTION_MS : REMOTE_MS);
	/* Without poll() the read has to wait; the tick interrupts it. */
	if (n < 0 && errno != EINTR)
		return fds[0].fd >= 0;
	if (n <= 0)
		return false;
	if (fds[1].revents != 0)
		take_wake(s);
	return fds[0].fd >= 0 && fds[0].revents != 0;
}

/* Let the tick run while the store has something to do that no request may come to remind us of. */
static void tend_tick(struct fs *fs)
{
	struct session *s = fs->session;
	bool dirty = store_is_dirty(fs->store);

	if (dirty == s->ticking)
		return;
	s->ticking = dirty;
	if (!s->stopping)
		set_tick(s->tick, dirty ? TICK_MS : 0);
}

/* Once. */
static void log_failure(struct fs *fs, int failed)
{
	struct session *s = fs->session;
	uint64_t byte;

	if (failed == 0 || s->failed_logged)
		return;
	s->failed_logged = true;
	if (store_lost(fs->store, &byte))
		log_error("STORE FAILED: %s: byte %llu cannot be read, somebody cut the file short or its disk "
			  "failed: now read-only, what is missing gives EIO: unmount, look after the file, mount again",
			  fs->store_path, (unsigned long long)byte);
	else
		log_error("STORE FAILED: %s: %s: now read-only, what was not synced may be lost: "
			  "unmount, look after the disk, mount again",
			  fs->store_path, strerror(-failed));
}

static void tend_store(struct fs *fs)
{
	int r = store_poll(fs->store), failed = store_failed(fs->store);

	log_failure(fs, failed);
	if (r < 0 && r != -EAGAIN && failed == 0) {
		static int64_t logged_s;

		if (log_allowed(&logged_s))
			log_warn("%s: housekeeping: %s, retrying", fs->store_path, strerror(-r));
	}
	if (!defer_is_empty(&fs->checkpoint))
		defer_run(&fs->checkpoint);
}

/* What is to be done between requests; idle: there was none. */
static void housekeeping(struct fs *fs, bool idle)
{
	struct session *s = fs->session;

	tend_store(fs);
	s->remote_more = remote_step(fs->remote);
	if (reaper_has_work(fs) && (idle || ++s->since_reap >= REAP_EVERY)) {
		s->since_reap = 0;
		s->reap_waits = reaper_step(fs) == -EAGAIN;
	}
	if (s->parked != NULL && (s->was_woken || clock_mono_ms() - s->retry_ms >= ATTENTION_MS))
		retry_parked(fs);
	tend_tick(fs);
}

/* Unmounting may need requests answered (what the write-back cache holds), so another thread does
 * it. */
static void *stopper_main(void *arg)
{
	struct fs *fs = arg;
	struct mnt_info info;
	int r = 0;

	session_block_signals();
	/* Who has taken our mount away may have mounted something else there. */
	if (fs->device[0] == '\0' || (mnt_find(fs->mountpoint, &info) == 0 && strcmp(info.device, fs->device) == 0))
		r = mnt_detach(fs->mountpoint);
	if (r < 0)
		log_warn("%s: cannot be unmounted: %s, leaving it", fs->mountpoint, strerror(-r));
	atomic_store(&fs->session->detached, true);
	return NULL;
}

/* Told to stop: unmount, and go on until the kernel is done with us. True: it is time to leave. */
static bool stop(struct fs *fs)
{
	struct session *s = fs->session;

	if (!s->stopping) {
		log_info("signal %d: unmounting %s", (int)stop_signal, fs->mountpoint);
		s->stopping = true;
		if (pthread_create(&s->stopper, NULL, stopper_main, fs) != 0) {
			log_warn("%s: no thread to unmount it, leaving it", fs->mountpoint);
			return true;
		}
	}
	if (!atomic_load(&s->detached))
		return false;
	if (s->detached_ms == 0)
		s->detached_ms = clock_mono_ms();
	if (clock_mono_ms() - s->detached_ms < STOP_GRACE_MS)
		return false;
	log_warn("%s: files are still open, closing the store", fs->mountpoint);
	return true;
}

/* The loop itself; s->error says how it ended. All that it does may touch the store's mapping; it holds
 * no lock then. */
static int serve(void *arg)
{
	struct fs *fs = arg;
	struct session *s = fs->session;

	while (!fuse_session_exited(fs->fuse)) {
		bool idle;

		if (stop_signal != 0 && stop(fs))
			break;
		idle = !wait_request(fs);
		if (!idle) {
			int r = read_request(fs);

			if (r < 0)
				s->error = r;
		}
		if (s->error < 0)
			break;
		housekeeping(fs, idle);
		if (!s->told && fs->requests[FUSE_INIT] != 0) {
			s->told = true;
			s->ready(fs);
		}
	}
	return 0;
}

int session_run(struct fs *fs, void (*ready)(struct fs *fs))
{
	struct session *s = fs->session;
	int r;

	s->ready = ready;
	take_signals();
	while (map_guard(serve, fs) < 0) {
		end_request(fs);
		fs->reaper.off = true;
		store_left_halfway(fs->store);
		log_failure(fs, store_failed(fs->store));
	}
	if (s->stopping)
		pthread_join(s->stopper, NULL);
	session_block_signals();
	r = s->error;
	/* ENODEV: unmounted. ECONNABORTED and the like: the connection was cut, which is no failure
	 * of ours. */
	if (r == -ENODEV || r == -ECONNABORTED)
		r = 0;
	return r;
}
