/* SPDX-License-Identifier: MIT
 *
 * guard: a small process that ends the mount's connection to the kernel when the daemon was killed and cannot die.
 *
 * Why. A thread that tells the kernel of another machine's change (notify.h) waits in the kernel for the lock of a directory, and
 * nothing interrupts that wait. The lock is held by a program's request that waits for our answer. A daemon that is killed then gives
 * no answer, but that one thread of it cannot end before it has the lock, and keeps /dev/fuse open: so the kernel does not take the
 * daemon for gone, the program waits for ever, and with it all who come to the mount. A thread that repeats changes for inotify
 * (repeat.h) waits likewise, for an answer of our own. Nothing inside the daemon is left to help: somebody else has to.
 *
 * How. The guard is a child of the request thread, which lives as long as the daemon and never waits so. The kernel sends a signal to a
 * child whose parent *thread* ends (PR_SET_PDEATHSIG). The end of the whole process would not do, since it does not come: so neither would a
 * pidfd (but of a thread, from Linux 6.9 on), nor a pipe, whose other end the hung thread keeps open. A daemon that ends itself by a bug
 * does not even get to that: the kernel first waits for all threads, to write the core. So it tells the guard by the same signal.
 * The guard then writes to the connection's file `abort` in /sys/fs/fuse/connections, opened when the mount was made: all who wait get an
 * error, the lock is free, the thread ends. That descriptor is good for this one connection only: when the connection ends, the kernel parts
 * the file from it, and the number in its name may be used again without harm (fs/fuse/control.c). While it is open, /sys/fs/fuse/connections cannot be unmounted (but with -l). The file belongs to who mounted, so a common
 * user's guard can write to it. Where there is no such file (containers without fusectl), root's guard does what `umount -f` does.
 *
 * It is made before the store is opened, while the daemon has one thread and little memory, keeps no descriptor of it, and has a session
 * of its own. It ignores all signals but that one: whoever tells everybody to stop (systemd, a terminal) means the daemon, which ends it when the device is
 * closed. It calls itself fuse-guard, since `pkill -9 msyncfs` must not take it along.
 *
 * Killed together with the daemon it helps nobody. Then the next `msyncfs mount` there does what it would have done (holder_hangs()).
 *
 * Looked at and refused: telling the kernel from a child with a descriptor of the device, or a clone of it (any of them keeps the connection);
 * io_uring (its worker threads wait in the same place); the kernel's own time limit for requests (Linux 6.14: it also ends a lock that is waited for);
 * not telling the kernel while a request is under way (the lock is taken before the request is sent).
 *
 * All calls belong to the request thread, but for guard_alarm().
 */
#ifndef MSYNCFS_GUARD_H
#define MSYNCFS_GUARD_H

struct guard;

/* Before any other thread is started. The path must stay until guard_stop(). On return the process is there, and has nothing of ours
 * open. -errno: there is none. */
int guard_start(const char *mountpoint, struct guard **ret);
/* We are mounted; the device as the mount table has it. 0: from now on the connection is ended if this process is killed. -errno: it
 * cannot be, as far as is known now. */
int guard_watch(struct guard *g, const char *device);
/* The device is closed: the guard goes. NULL is fine. */
void guard_stop(struct guard *g);
/* [any process] End the connection of the mount with this device number, as far as we may. 0, -errno: what there was against it. */
int guard_end(const char *mountpoint, unsigned minor);
/* [any thread, signal handlers] This process is about to end by a bug. */
void guard_alarm(void);

#endif
