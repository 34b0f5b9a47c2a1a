# SPDX-License-Identifier: MIT
# msyncfs: one flat Makefile. `make help` lists the targets; config.mak holds local overrides.
#
#   MODE=release|asan|tsan|fuzz  what to build, each in build/$(MODE)/
#   CFLAGS, LDFLAGS          yours, added behind ours         V=1        full commands
#   WERROR=1                 warnings are errors              STORE MNT  for mount and umount

-include config.mak

MODE    ?= release
VERSION ?= 0.1.0
V       ?= 0

# Where things go.
PREFIX    ?= /usr/local
BINDIR    ?= $(PREFIX)/bin
SBINDIR   ?= $(PREFIX)/sbin
MANDIR    ?= $(PREFIX)/share/man
DOCDIR    ?= $(PREFIX)/share/doc/msyncfs
UNITDIR   ?= $(PREFIX)/lib/systemd/system
HELPERDIR ?= /sbin
DESTDIR   ?=
INSTALL   ?= install

# What `make mount` mounts, and where.
STORE ?= ./data.msync
MNT   ?= ./mnt

# Debian packages: all that is needed is named here and nowhere else.
DEPS_BUILD := gcc libc6-dev pkg-config libfuse3-dev fuse3 libxxhash-dev libzstd-dev libssl-dev
DEPS_TEST  := libcmocka-dev perl attr acl git sqlite3 rsync vim-tiny dbench fio util-linux mount procps e2fsprogs xfsprogs strace iproute2 btrfs-progs inotify-tools
DEPS_FUZZ  := clang-14 libclang-rt-14-dev
DEPS_CROSS := gcc-s390x-linux-gnu libc6-dev-s390x-cross gcc-i686-linux-gnu libc6-dev-i386-cross qemu-user-static
DEPS_BENCH := liblmdb-dev libsqlite3-dev bindfs
DEPS_LINT  := shellcheck mandoc cppcheck clang-tidy
DEPS       ?= $(DEPS_BUILD) $(DEPS_TEST) $(DEPS_BENCH) $(DEPS_FUZZ)

# -------------------------------------------------------------------------------------------------------------- flags
# gcc builds everything; the thread sanitizer prefers clang, whose runtime is the better one.
ifeq ($(origin CC),default)
CC := $(if $(filter fuzz,$(MODE)),clang-14,$(if $(filter tsan,$(MODE)),$(shell command -v clang || echo gcc),gcc))
endif
AR ?= ar

ifeq ($(MODE),release)
MODE_CFLAGS := -O2 -g -fstack-protector-strong
else ifeq ($(MODE),asan)
MODE_CFLAGS := -O1 -g -fno-omit-frame-pointer -DMSYNCFS_DEBUG=1
SAN_CFLAGS  := -fsanitize=address,undefined -fno-sanitize-recover=undefined
else ifeq ($(MODE),tsan)
MODE_CFLAGS := -O1 -g -fno-omit-frame-pointer -DMSYNCFS_DEBUG=1
SAN_CFLAGS  := -fsanitize=thread
else ifeq ($(MODE),fuzz)
# A small cache of verified pages, since each execution has one of its own.
MODE_CFLAGS := -O2 -g -fno-omit-frame-pointer -DMSYNCFS_DEBUG=1 -DVERIFIED_BITS=12u
SAN_CFLAGS  := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
# Inputs reach the core through an interpreter: what it compares is of no use to them, and costs half the time.
FUZZ_CORE   := -fno-sanitize-coverage=trace-cmp,trace-div,trace-gep
else
$(error MODE=$(MODE) is not one of release, asan, tsan, fuzz)
endif

WARN_CFLAGS := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wformat=2 -Wvla -Wundef -Wpointer-arith
ifeq ($(WERROR),1)
WARN_CFLAGS += -Werror
endif
OUR_CPPFLAGS := -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFUSE_USE_VERSION=314
OUR_CFLAGS   := -std=gnu11 $(WARN_CFLAGS) $(MODE_CFLAGS) -pthread
OUR_LDFLAGS  := -pthread
ALL_CFLAGS    = $(OUR_CPPFLAGS) $(CPPFLAGS) $(OUR_CFLAGS) $(CFLAGS)

# Asked for only when something is compiled, since `make deps` may have to fetch pkg-config first.
pkg         = $(shell pkg-config $(1) || echo '-DRUN_make_deps_FIRST')
FUSE_CFLAGS = $(eval FUSE_CFLAGS := $(call pkg,--cflags fuse3))$(FUSE_CFLAGS)
FUSE_LIBS   = $(eval FUSE_LIBS := $(call pkg,--libs fuse3))$(FUSE_LIBS)
CORE_LIBS   = $(eval CORE_LIBS := $(call pkg,--libs libxxhash libzstd libssl libcrypto))$(CORE_LIBS)
TEST_LIBS   = $(eval TEST_LIBS := $(call pkg,--libs cmocka))$(TEST_LIBS)

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-7s %s\n'
endif

# -------------------------------------------------------------------------------------------------------------- files
B := build/$(MODE)

CORE_SRC := $(wildcard core/*.c core/*/*.c)
FS_SRC   := $(wildcard fs/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UTIL_SRC := $(wildcard tests/unit/*_util.c)
CRASH_SRC := $(wildcard tests/crash/*.c)
SIM_SRC  := $(wildcard tests/sim/*.c)
CLUSTER_SRC := $(wildcard tests/cluster/*.c)
HELP_SRC := $(wildcard tests/mount/helpers/*.c tests/remote/*.c)
FAULT_SO_SRC := $(wildcard tests/fault/*.c)
KILL_SRC := $(filter-out tests/kill/points.c,$(wildcard tests/kill/*.c))
FAULT_TESTS := $(sort $(wildcard tests/fault/[0-9]*.sh))
MOUNT_TESTS := $(sort $(wildcard tests/mount/[0-9]*.sh))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_SRC := $(filter-out %_util.c,$(FUZZ_SRC))
FUZZ_UTIL := $(wildcard tests/fuzz/*_util.c)
MAN1     := $(wildcard fs/man/*.1)
MAN8     := $(wildcard fs/man/*.8)

LIB     := $(B)/libmsyncfs_core.a
PROGRAM := $(B)/msyncfs
obj      = $(patsubst %.c,$(B)/%.o,$(1))
UNIT_PROGRAMS   := $(patsubst %.c,$(B)/%,$(UNIT_SRC))
FUZZ_PROGRAMS   := $(patsubst %.c,$(B)/%,$(FUZZ_SRC))
CRASH_PROGRAM   := $(B)/tests/crash/crash
SIM_PROGRAM     := $(B)/tests/sim/sim
CLUSTER_PROGRAM := $(B)/tests/cluster/cluster
CRASH_DISK      := $(B)/tests/crash/disk/crashdisk
LOOP_PROGRAM    := $(B)/tests/mount/loop/msyncfs
KILL_PROGRAM    := $(B)/tests/kill/kill
KILL_SO         := $(B)/tests/kill/points.so
HELPER_PROGRAMS := $(addprefix $(B)/tests/helpers/,$(basename $(notdir $(HELP_SRC))))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory -r

.PHONY: all help deps mount umount unit check test test-run test-programs fault fuzz fuzz-run crash crash-long crash-mutants \
	crash-disk sim sim-mutants cluster cluster-mutants kill kill-mutants inotify-test lock-links-test remote-test remote-mutants demo salvage-test compat-cross bench bench-remote lint sanitize install uninstall dist clean distclean FORCE

all: $(PROGRAM)  ## build the program and the library (default)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo 'MODE=release|asan|tsan  V=1  WERROR=1  PREFIX=$(PREFIX)  DESTDIR=  STORE=$(STORE)  MNT=$(MNT)'

# ------------------------------------------------------------------------------------------------------- dependencies
deps:  ## install the Debian packages that are missing (as root; else print the command)
	@missing=; command -v dpkg-query >/dev/null || { \
		echo 'deps: not a Debian system; needed are the equivalents of: $(DEPS)'; exit 0; }; \
	for p in $(DEPS); do \
		[ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "deps: missing packages; run as root: apt-get install$$missing" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	get() { apt-get install -y --no-install-recommends$$missing; }; \
	echo "deps: installing$$missing"; \
	ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || apt-get update || exit 1; \
	get || { apt-get update && get; }

# -------------------------------------------------------------------------------------------------------------- build
# Rebuild when the compiler or the flags change.
FLAGS_NOW = $(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) $(LDFLAGS) $(VERSION)
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' >$@

$(B)/core/%.o: core/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) -Wconversion $(SAN_CFLAGS) $(FUZZ_CORE) -MMD -MP -c -o $@ $<

$(B)/fs/%.o: fs/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) $(FUSE_CFLAGS) -DMSYNCFS_VERSION='"$(VERSION)"' -MMD -MP -c -o $@ $<

$(B)/tests/unit/%.o: tests/unit/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/crash/%.o: tests/crash/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) -MMD -MP -c -o $@ $<

# The archive is made anew, so that it never keeps a member whose source is gone. The list of members is a
# prerequisite, so that a source that went away is noticed.
$(B)/core.list: FORCE
	@mkdir -p $(@D)
	@echo '$(sort $(CORE_SRC))' | cmp -s - $@ || echo '$(sort $(CORE_SRC))' >$@

$(LIB): $(call obj,$(CORE_SRC)) $(B)/core.list
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(PROGRAM): $(call obj,$(FS_SRC)) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) \
		$(FUSE_LIBS) $(CORE_LIBS) $(LDLIBS)

# Calls that test_fault makes to fail; they are not in the store's table of system calls. The names are those of glibc
# with 64-bit offsets.
WRAPPED := open64 fstat64 flock pread64 fcntl64 linkat fsync fstatvfs64 mmap64 fallocate64 ftruncate64 pwrite64 \
	getrandom pthread_create
$(B)/tests/unit/test_fault: TEST_LDFLAGS := $(foreach f,$(WRAPPED),-Wl,--wrap=$(f))
# Locks and waits that test_sync looks at.
$(B)/tests/unit/test_sync: TEST_LDFLAGS := $(foreach f,pthread_mutex_lock pthread_mutex_unlock pthread_cond_wait pthread_cond_timedwait,-Wl,--wrap=$(f))
# Those at which test_race lets another process come in between.
$(B)/tests/unit/test_race: TEST_LDFLAGS := $(foreach f,open64 flock linkat,-Wl,--wrap=$(f))

# What test_outfile makes to fail, or not to be there.
$(B)/tests/unit/test_outfile: TEST_LDFLAGS := $(foreach f,open64 linkat renameat2 fsync,-Wl,--wrap=$(f))

$(B)/tests/unit/test_pending: $(call obj,fs/pending.c)
$(B)/tests/unit/test_clients: $(call obj,fs/clients.c)
$(B)/tests/unit/test_orphans: $(call obj,fs/orphans.c)
$(B)/tests/unit/test_linear: $(call obj,tests/remote/linear/linear.c)
# Allocations that they make to fail.
$(B)/tests/unit/test_net: TEST_LDFLAGS := $(foreach f,malloc calloc,-Wl,--wrap=$(f))
$(B)/tests/unit/test_link: TEST_LDFLAGS := $(foreach f,malloc calloc realloc,-Wl,--wrap=$(f))

$(UNIT_PROGRAMS): $(B)/tests/unit/%: $(B)/tests/unit/%.o $(call obj,$(UTIL_SRC)) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) $(TEST_LDFLAGS) $(LDFLAGS) -o $@ \
		$(filter %.o %.a,$^) $(TEST_LIBS) $(CORE_LIBS) $(LDLIBS)

# A fuzz target is a libFuzzer program in MODE=fuzz; else it runs its corpus.
$(B)/tests/fuzz/%.o: tests/fuzz/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) $(FUSE_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/fuzz/fuzz_options: $(call obj,fs/options.c fs/log.c)
$(B)/tests/fuzz/fuzz_control: $(call obj,fs/control.c fs/status.c fs/watch.c fs/text.c fs/inodes.c fs/options.c fs/log.c)
$(FUZZ_PROGRAMS): $(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(call obj,$(FUZZ_UTIL)) $(LIB) \
		$(if $(filter fuzz,$(MODE)),,$(call obj,tests/fuzz/main.c))
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) $(OUR_LDFLAGS) \
		$(LDFLAGS) -o $@ $(filter %.o,$^) $(LIB) $(CORE_LIBS) $(LDLIBS)

# A small cache of verified pages: each image is opened twice, and has one of its own each time.
$(B)/tests/crash/tree.o: core/store/tree.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) -DVERIFIED_BITS=14u -Wconversion $(SAN_CFLAGS) -MMD -MP -c -o $@ $<

$(CRASH_PROGRAM): $(B)/tests/crash/tree.o $(call obj,$(CRASH_SRC) $(wildcard tests/unit/crash_*_util.c) tests/unit/crash_util.c) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) $(foreach f,open64 linkat fsync XXH3_64bits_withSeed,-Wl,--wrap=$(f)) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) \
		$(CORE_LIBS) $(LDLIBS)

$(B)/tests/sim/%.o: tests/sim/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) -MMD -MP -c -o $@ $<

$(SIM_PROGRAM): $(call obj,$(SIM_SRC)) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) \
		$(CORE_LIBS) $(LDLIBS)

# Mounts without a kernel, a store, sockets: the code of their links is the real one, the clock is the test's.
$(B)/tests/cluster/%.o: tests/cluster/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) $(FUSE_CFLAGS) -MMD -MP -c -o $@ $<

$(CLUSTER_PROGRAM): $(call obj,$(CLUSTER_SRC) $(addprefix fs/,lockd.c remote.c remote_run.c remote_start.c remote_status.c text.c follower.c feeder.c feeder_up.c feeder_engine.c feeder_diff.c feeder_post.c feeder_orphans.c orphans.c pending.c relay.c say.c first.c still.c inodes.c)) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) -Wl,--wrap=clock_gettime $(LDFLAGS) -o $@ \
		$(filter %.o %.a,$^) $(CORE_LIBS) $(LDLIBS)

$(CRASH_DISK): tests/crash/disk/crashdisk.c $(LIB)
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) $(FUSE_CFLAGS) -MMD -MP -o $@ $< $(LIB) $(OUR_LDFLAGS) $(LDFLAGS) \
		$(FUSE_LIBS) $(CORE_LIBS) $(LDLIBS)

# The daemon whose changes go through calls, as on a remote mount: see loop.c.
$(B)/tests/mount/loop/%.o: tests/mount/loop/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) $(FUSE_CFLAGS) -MMD -MP -c -o $@ $<

$(LOOP_PROGRAM): $(B)/tests/mount/loop/loop.o $(call obj,$(FS_SRC)) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) -Wl,--wrap=session_run,--wrap=store_poll $(LDFLAGS) \
		-o $@ $(filter %.o %.a,$^) $(FUSE_LIBS) $(CORE_LIBS) $(LDLIBS)

$(B)/tests/remote/linear/%.o: tests/remote/linear/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) -MMD -MP -c -o $@ $<

# Helpers of the mount tests exercise the mount, not themselves: never sanitized.
define helper_recipe
@mkdir -p $(@D)
$(say) CC $<
$(Q)$(CC) $(ALL_CFLAGS) $(HELPER_CFLAGS) -MMD -MP -o $@ $< $(filter %.o,$^) $(OUR_LDFLAGS) $(LDFLAGS)
endef
$(B)/tests/helpers/netlog: $(call obj,tests/remote/linear/linear.c)
$(B)/tests/helpers/netlog: HELPER_CFLAGS = $(SAN_CFLAGS)
# This one is made of our own code, which MODE may have sanitized.
$(B)/tests/helpers/hostile: tests/mount/helpers/hostile.c $(LIB) $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) -MMD -MP -o $@ $< $(LIB) $(OUR_LDFLAGS) $(LDFLAGS) $(CORE_LIBS) $(LDLIBS)
$(B)/tests/helpers/%: tests/mount/helpers/%.c $(B)/flags
	$(helper_recipe)
$(B)/tests/helpers/%: tests/remote/%.c $(B)/flags
	$(helper_recipe)

# Loaded into the daemon by the fault tests; never sanitized either.
FAULT_SO := $(patsubst tests/fault/%.c,$(B)/tests/fault/%.so,$(FAULT_SO_SRC))
$(FAULT_SO): $(B)/tests/fault/%.so: tests/fault/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -shared -MMD -MP -o $@ $< $(OUR_LDFLAGS) $(LDFLAGS) -ldl

# Where a sanitizer has an allocator of its own: the daemon with our own calls wrapped, see memory.c. It has the program's name,
# by which the tests know a daemon.
FAULT_PROGRAM := $(B)/tests/fault/memory/msyncfs
$(B)/tests/fault/memory/linked.o: tests/fault/memory.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) -DLINKED -MMD -MP -c -o $@ $<

$(FAULT_PROGRAM): $(B)/tests/fault/memory/linked.o $(call obj,$(FS_SRC)) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) $(foreach f,malloc calloc realloc strdup,-Wl,--wrap=$(f)) \
		$(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(FUSE_LIBS) $(CORE_LIBS) $(LDLIBS)

# The kill machine knows the daemon from outside only; its library is loaded into it. Neither is sanitized.
$(KILL_PROGRAM): $(KILL_SRC) $(wildcard tests/kill/*.h) $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $@
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(KILL_SRC) $(OUR_LDFLAGS) $(LDFLAGS)

$(KILL_SO): tests/kill/points.c tests/kill/points.h $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -shared -o $@ $< $(OUR_LDFLAGS) $(LDFLAGS)

# Keep objects of unit tests: they are intermediate to make, not to us.
.SECONDARY:

-include $(patsubst %.o,%.d,$(B)/tests/crash/tree.o $(call obj,$(CORE_SRC) $(FS_SRC) $(UNIT_SRC) $(UTIL_SRC) $(FUZZ_SRC) $(FUZZ_UTIL) \
	$(CRASH_SRC) $(SIM_SRC) $(CLUSTER_SRC) tests/fuzz/main.c tests/mount/loop/loop.c tests/remote/linear/linear.c)) $(B)/tests/fault/memory/linked.d $(HELPER_PROGRAMS:=.d) $(FAULT_SO:.so=.d) $(CRASH_DISK).d

# -------------------------------------------------------------------------------------------------------------- mount
mount:  ## build, create a store if there is none, mount it (STORE=, MNT=)
	@$(MAKE) deps DEPS='$(DEPS_BUILD)'
	@$(MAKE) all
	@[ -d '$(MNT)' ] || mkdir -p '$(MNT)' 2>/dev/null || [ -e '$(MNT)' ] || mkdir -p '$(MNT)'
	@$(PROGRAM) mount '$(STORE)' '$(MNT)'
	@printf '%s\n' '' 'mounted: $(STORE) on $(MNT). Try:' \
		'  echo hello >$(MNT)/greeting; cat $(MNT)/greeting' \
		'  mkdir $(MNT)/d; cp -r /etc/. $(MNT)/d 2>/dev/null; ls $(MNT)/d' \
		'  cat $(MNT)/.msyncfs/status' \
		'unmount:  make umount$(if $(filter-out ./mnt,$(MNT)), MNT=$(MNT))'

umount:  ## unmount what `make mount` mounted; returns when the store is closed
	@MSYNCFS='$(PROGRAM)' mount-scripts/umount.msyncfs '$(MNT)'

# -------------------------------------------------------------------------------------------------------------- tests
# prove runs the cmocka programs (TAP) and the shell tests alike; the formatter adds the closing count.
TEST_JOBS    ?= 2
TEST_TIMEOUT ?= 400
PROVE = perl -Itests -S prove --exec 'timeout -k 20 $(TEST_TIMEOUT)' --formatter TapCount
TEST_ENV = CMOCKA_MESSAGE_OUTPUT=TAP MODE=$(MODE) MSYNCFS='$(abspath $(PROGRAM))' \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

test-programs: $(PROGRAM) $(UNIT_PROGRAMS) $(CRASH_PROGRAM) $(SIM_PROGRAM) $(CLUSTER_PROGRAM) $(FUZZ_PROGRAMS) $(HELPER_PROGRAMS) $(FAULT_SO) \
	$(LOOP_PROGRAM) $(KILL_PROGRAM) $(KILL_SO) $(if $(filter asan,$(MODE)),$(FAULT_PROGRAM))

UNIT_RUN := $(UNIT_PROGRAMS) $(CRASH_PROGRAM) $(SIM_PROGRAM) $(CLUSTER_PROGRAM) $(FUZZ_PROGRAMS)
unit: $(UNIT_RUN)  ## build and run the unit tests, some power cuts, simulated clusters, the fuzz corpus (no root, no packages fetched)
	@$(TEST_ENV) $(PROVE) -j$(TEST_JOBS) $(UNIT_RUN)

check: unit  ## the tests that need neither root nor a mount

test:  ## get what is missing, build, run every test; closes with "N passed, N failed"
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) test-programs
	@$(MAKE) test-run

TESTS ?= $(UNIT_RUN) $(MOUNT_TESTS) $(FAULT_TESTS)
test-run: test-programs
	@$(TEST_ENV) $(PROVE) -j$(TEST_JOBS) $(TESTS)

# Each call refused in turn with each error, the device, disks that fill and fail, files cut short, little memory.
FAULT_PROGRAMS := $(foreach t,fault lost map,$(B)/tests/unit/test_$(t))
fault: TEST_TIMEOUT = 3600
fault:  ## every fault of section "faults", with each error it can give (about ten minutes)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) test-programs
	@FAULT_LONG=1 $(TEST_ENV) $(PROVE) -v -j1 --comments $(FAULT_PROGRAMS) $(FAULT_TESTS)

# Each target FUZZ_TIME seconds, two at a time; `make fuzz FUZZ_TIME=1200` is the long run. FUZZ_TARGETS="open tree" for some.
FUZZ_TIME    ?= 60
FUZZ_TARGETS ?= $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZ_SRC))
fuzz:  ## libFuzzer with ASan and UBSan on whatever reads bytes (FUZZ_TIME= seconds for each target)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_FUZZ)'
	@$(MAKE) MODE=fuzz fuzz-run

fuzz-run: $(FUZZ_PROGRAMS)
	@tests/fuzz/run.sh $(B)/tests/fuzz '$(FUZZ_TIME)' $(FUZZ_TARGETS)

# The power-cut machine. Words as SEED= KIND= UNITS= IMAGE= SECTORS= on the command line (a failure prints them) reach it
# through the environment; with any of them there is no other limit.
CRASH_WORDS := SEED KIND CASES UNITS IMAGE
crash: $(CRASH_PROGRAM)  ## cut the power in 100000 ways (IMAGES=n), on all CPUs; SEED= KIND= ... replay what a failure prints
	@$(if $(strip $(foreach w,$(CRASH_WORDS),$($(w)))),,IMAGES=$(or $(IMAGES),100000)) $(CRASH_PROGRAM)

DURATION ?= 3600
crash-long: $(CRASH_PROGRAM)  ## the same for DURATION= seconds (3600), from SEED= on (default: the time)
	@seed=$${SEED:-$$(date +%s)}; echo "crash-long: SEED=$$seed"; \
	SEED=$$seed DURATION=$(DURATION) $(CRASH_PROGRAM)

crash-mutants: $(CRASH_PROGRAM)  ## break each ordering point on purpose; `make crash` must find every one (MUTANTS='name ...')
	@CC='$(CC)' MODE=$(MODE) tests/crash/mutants.sh $(MUTANTS)

# The simulated cluster. SEED= SHRINK=1 TRACE=1 STEPS= KINDS= FIRST= reach it through the environment.
sim: $(SIM_PROGRAM)  ## primary, replicas, relays and clients from one seed: SEEDS=n (200000), on all CPUs; SEED= TRACE=1 replays
	@$(if $(SEED),,SEEDS=$(or $(SEEDS),200000)) $(SIM_PROGRAM)

cluster: $(CLUSTER_PROGRAM)  ## mounts in one thread, locks and changes of roles: SEEDS=n (5000); SEED= TRACE=1 replays
	@SEEDS=$(or $(SEEDS),5000) $(CLUSTER_PROGRAM)

cluster-mutants: $(CLUSTER_PROGRAM) $(B)/tests/unit/test_locks $(B)/tests/unit/test_locks_model  ## break each of their rules on purpose; every one must be found (MUTANTS='name ...')
	@MODE=$(MODE) tests/cluster/mutants.sh $(MUTANTS)

sim-mutants: $(SIM_PROGRAM)  ## break each rule of the protocol on purpose; `make sim` must find every one (MUTANTS='name ...')
	@CC='$(CC)' MODE=$(MODE) tests/sim/mutants.sh $(MUTANTS)

crash-disk: test-programs $(CRASH_DISK)  ## the store on ext4 and XFS images that are copied under load, mounted and checked (root)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(TEST_ENV) $(PROVE) tests/crash/disk.sh

# The daemon is killed under load, thousands of times. DURATION= seconds (180 if not told), SEED= and what else a failure
# prints reach the machine through the environment. What a failure leaves stays in the directory that is named.
kill: $(PROGRAM) $(KILL_PROGRAM) $(KILL_SO)  ## kill -9 the daemon under load for DURATION= seconds (180); SEED= LIFE= replay what a failure prints
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@dir=$$(mktemp -d $${TMPDIR:-/tmp}/msyncfs-kill.XXXXXX) && echo "# in $$dir" && \
	PROGRAM='$(abspath $(PROGRAM))' $(if $(filter release,$(MODE)),POINTS='$(abspath $(KILL_SO))') SCRIPTS=tests/kill \
		DURATION='$(if $(filter command% env%,$(origin DURATION)),$(DURATION),180)' $(KILL_PROGRAM) "$$dir" && rm -rf "$$dir"

kill-mutants: $(PROGRAM) $(KILL_PROGRAM) $(KILL_SO)  ## break what a kill must not harm on purpose; `make kill` must find every one (MUTANTS='name ...')
	@CC='$(CC)' MODE=$(MODE) tests/kill/mutants.sh $(MUTANTS)

sanitize:  ## the same tests under ASan+UBSan, then under TSan
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) MODE=asan test-run TEST_TIMEOUT=900
	@$(MAKE) MODE=tsan test-run TEST_TIMEOUT=900

inotify-test: test-programs  ## inotify for changes made on other machines (about a minute; root)
	@$(TEST_ENV) tests/remote/inotify.sh

lock-links-test: test-programs  ## locks of the cluster while links break all the time (root)
	@$(TEST_ENV) ROUNDS=8 tests/mount/6007-lock-links.sh

# The long form of what tests/mount/601*.sh does in part. SEED= replays the order of the trouble.
remote-test:  ## real machines (network namespaces) under load and trouble of every kind, and histories checked (minutes; root)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) test-programs
	@ROUNDS=$(or $(ROUNDS),4) $(TEST_ENV) tests/remote/netns.sh
	@ROUNDS=$(or $(ROUNDS),4) SECONDS_EACH=20 TROUBLE='cut cut hold lose slow none kill' $(TEST_ENV) tests/remote/history.sh

remote-mutants: test-programs  ## break what remote mounts promise on purpose; the checker of histories must find every one (MUTANTS='name ...')
	@CC='$(CC)' MODE=$(MODE) tests/remote/mutants.sh $(MUTANTS)

demo: all  ## three mounts on one machine: half a minute of what this is (root: in network namespaces)
	@MSYNCFS='$(abspath $(PROGRAM))' tests/remote/demo.sh

salvage-test:  ## damage every page of a store in every way: is all of it named, and the rest saved? (minutes)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) $(foreach t,damage salvage salvage_lead,$(B)/tests/unit/test_$(t))
	@DAMAGE_FULL=1 $(B)/tests/unit/test_damage
	@SALVAGE_FULL=1 $(B)/tests/unit/test_salvage
	@SALVAGE_FULL=1 $(B)/tests/unit/test_salvage_lead

compat-cross:  ## build for big-endian and 32-bit machines, open the same stores there (qemu-user; minutes)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST) $(DEPS_CROSS)'
	@tests/compat/cross.sh s390x i386

# Who is not root lints with the tools that are there; lint.sh names the others.
lint:  ## get what is missing, static checks, include directions, paths in documents
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_LINT)' || [ "$$(id -u)" != 0 ]
	@CC='$(CC)' tests/lint.sh '$(OUR_CPPFLAGS) $(FUSE_CFLAGS) -DMSYNCFS_VERSION="$(VERSION)"'

# -------------------------------------------------------------------------------------------------------------- bench
# The bench has rules of its own: it builds peers that nothing else needs.
bench:  ## get what is missing, build, measure against the peers
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_BENCH)'
	@$(MAKE) all
	@$(MAKE) -f tests/bench/bench.mk bench MODE=$(MODE) BUILD='$(B)' CC='$(CC)' BENCH_CORE_LIBS='$(CORE_LIBS) -lpthread'

# Peers that are not installed are left out: `make deps DEPS='redis-server etcd-server glusterfs-server'` gets them.
bench-remote:  ## the same for remote mounts: reads, changes, lag, catch-up (root: in network namespaces too)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_BENCH)'
	@$(MAKE) all $(B)/tests/helpers/relay
	@$(MAKE) -f tests/bench/bench.mk bench-remote MODE=$(MODE) BUILD='$(B)' CC='$(CC)' BENCH_CORE_LIBS='$(CORE_LIBS) -lpthread'

# ------------------------------------------------------------------------------------------------------------ install
# "source|destination|mode", one word each: install and uninstall read the same list. @BINDIR@-like words in scripts
# and units are filled in on the way: the line `bindir=...` of the scripts, /usr/local/bin in the units.
INSTALL_LIST := \
	$(PROGRAM)|$(BINDIR)/msyncfs|755 \
	mount-scripts/mount.msyncfs|$(HELPERDIR)/mount.msyncfs|755 \
	mount-scripts/umount.msyncfs|$(HELPERDIR)/umount.msyncfs|755 \
	mount-scripts/fsck.msyncfs|$(HELPERDIR)/fsck.msyncfs|755 \
	mount-scripts/msyncfs@.service|$(UNITDIR)/msyncfs@.service|644 \
	mount-scripts/msyncfs-primary.service|$(DOCDIR)/examples/msyncfs-primary.service|644 \
	mount-scripts/msyncfs-replica.service|$(DOCDIR)/examples/msyncfs-replica.service|644 \
	mount-scripts/srv-data.mount|$(DOCDIR)/examples/srv-data.mount|644 \
	mount-scripts/fstab.example|$(DOCDIR)/examples/fstab.example|644 \
	LICENSE|$(DOCDIR)/LICENSE|644 \
	$(foreach f,$(wildcard README.md),$(f)|$(DOCDIR)/$(f)|644) \
	mount-scripts/COOKBOOK.md|$(DOCDIR)/COOKBOOK.md|644 \
	$(foreach f,$(MAN1),$(f)|$(MANDIR)/man1/$(notdir $(f))|644) \
	$(foreach f,$(MAN8),$(f)|$(MANDIR)/man8/$(notdir $(f))|644)
# umount(8) looks for a helper of the type fuse.msyncfs, unless the mount has noted one; so does `mount -t fuse.msyncfs`.
INSTALL_LINKS := mount.fuse.msyncfs|mount.msyncfs umount.fuse.msyncfs|umount.msyncfs

# The filled-in copy is each run's own: two installs from one tree must not put each other's files in place.
install: $(PROGRAM)  ## install under PREFIX (and mount helpers in HELPERDIR=/sbin); DESTDIR for packagers
	@set -e; tmp=$$(mktemp); trap 'rm -f "$$tmp"' EXIT; trap 'exit 1' HUP INT TERM; \
	for e in $(foreach e,$(INSTALL_LIST),'$(e)'); do \
		IFS='|'; set -- $$e; unset IFS; \
		[ '$(V)' = 0 ] || echo "install $$1 $(DESTDIR)$$2"; \
		$(INSTALL) -d "$(DESTDIR)$${2%/*}"; \
		case $$1 in \
		mount-scripts/*) \
			sed -e 's|^bindir=.*|bindir=$(BINDIR)|' -e 's|/usr/local/bin/|$(BINDIR)/|g' \
				-e 's|/sbin/umount\.msyncfs|$(HELPERDIR)/umount.msyncfs|g' "$$1" >"$$tmp"; \
			$(INSTALL) -m "$$3" "$$tmp" "$(DESTDIR)$$2";; \
		*)	$(INSTALL) -m "$$3" "$$1" "$(DESTDIR)$$2";; \
		esac; \
	done; \
	for e in $(foreach e,$(INSTALL_LINKS),'$(e)'); do ln -sf "$${e#*|}" "$(DESTDIR)$(HELPERDIR)/$${e%|*}"; done

uninstall:  ## remove exactly what install wrote
	@for e in $(foreach e,$(INSTALL_LIST),'$(e)'); do \
		IFS='|'; set -- $$e; unset IFS; rm -f "$(DESTDIR)$$2"; \
	done; \
	for e in $(foreach e,$(INSTALL_LINKS),'$(e)'); do rm -f "$(DESTDIR)$(HELPERDIR)/$${e%|*}"; done; \
	if [ -n '$(DESTDIR)' ] && [ -d '$(DESTDIR)' ]; then \
		cd '$(DESTDIR)' && find . -mindepth 1 -depth -type d -empty -delete; \
	else \
		rmdir '$(DOCDIR)/examples' '$(DOCDIR)' 2>/dev/null || :; \
	fi

# ------------------------------------------------------------------------------------------------------------ the rest
dist:  ## msyncfs-VERSION.tar.gz of the files under version control
	@git ls-files -z | tar --null -T - --sort=name --owner=0 --group=0 --numeric-owner \
		--transform 's|^|msyncfs-$(VERSION)/|' -czf msyncfs-$(VERSION).tar.gz
	@echo msyncfs-$(VERSION).tar.gz

clean:  ## remove what was built in this MODE
	rm -rf $(B)

distclean:  ## remove all that was built, in every MODE
	rm -rf build msyncfs-*.tar.gz
