# SPDX-License-Identifier: MIT
# msyncfs: one flat Makefile. `make help` lists the targets; config.mak holds local overrides.
#
#   MODE=release|asan|tsan   what to build, each in build/$(MODE)/
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
DEPS_BUILD := gcc libc6-dev pkg-config libfuse3-dev fuse3 libxxhash-dev libzstd-dev
DEPS_TEST  := libcmocka-dev perl attr acl git sqlite3 rsync vim-tiny dbench fio util-linux mount procps e2fsprogs xfsprogs strace
DEPS_BENCH := liblmdb-dev libsqlite3-dev bindfs
DEPS       ?= $(DEPS_BUILD) $(DEPS_TEST) $(DEPS_BENCH)

# -------------------------------------------------------------------------------------------------------------- flags
# gcc builds everything; the thread sanitizer prefers clang, whose runtime is the better one.
ifeq ($(origin CC),default)
CC := $(if $(filter tsan,$(MODE)),$(shell command -v clang || echo gcc),gcc)
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
else
$(error MODE=$(MODE) is not one of release, asan, tsan)
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
CORE_LIBS   = $(eval CORE_LIBS := $(call pkg,--libs libxxhash libzstd))$(CORE_LIBS)
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
HELP_SRC := $(wildcard tests/mount/helpers/*.c)
MOUNT_TESTS := $(sort $(wildcard tests/mount/[0-9]*.sh))
MAN1     := $(wildcard fs/man/*.1)
MAN8     := $(wildcard fs/man/*.8)

LIB     := $(B)/libmsyncfs_core.a
PROGRAM := $(B)/msyncfs
obj      = $(patsubst %.c,$(B)/%.o,$(1))
UNIT_PROGRAMS   := $(patsubst %.c,$(B)/%,$(UNIT_SRC))
CRASH_PROGRAM   := $(B)/tests/crash/crash
CRASH_DISK      := $(B)/tests/crash/disk/crashdisk
HELPER_PROGRAMS := $(patsubst tests/mount/helpers/%.c,$(B)/tests/helpers/%,$(HELP_SRC))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory -r

.PHONY: all help deps mount umount unit check test test-run test-programs bench lint sanitize \
	crash crash-long crash-mutants crash-disk install uninstall dist clean distclean FORCE

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
	$(Q)$(CC) $(ALL_CFLAGS) -Wconversion $(SAN_CFLAGS) -MMD -MP -c -o $@ $<

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

$(UNIT_PROGRAMS): $(B)/tests/unit/%: $(B)/tests/unit/%.o $(call obj,$(UTIL_SRC)) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) \
		$(TEST_LIBS) $(CORE_LIBS) $(LDLIBS)

$(CRASH_PROGRAM): $(call obj,$(CRASH_SRC) tests/unit/crash_util.c) $(LIB)
	$(say) LD $@
	$(Q)$(CC) $(OUR_CFLAGS) $(CFLAGS) $(SAN_CFLAGS) $(OUR_LDFLAGS) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) \
		$(CORE_LIBS) $(LDLIBS)

$(CRASH_DISK): tests/crash/disk/crashdisk.c $(LIB)
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(SAN_CFLAGS) $(FUSE_CFLAGS) -MMD -MP -o $@ $< $(LIB) $(OUR_LDFLAGS) $(LDFLAGS) \
		$(FUSE_LIBS) $(CORE_LIBS) $(LDLIBS)

# Helpers of the mount tests exercise the mount, not themselves: never sanitized.
$(HELPER_PROGRAMS): $(B)/tests/helpers/%: tests/mount/helpers/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -o $@ $< $(OUR_LDFLAGS) $(LDFLAGS)

# Keep objects of unit tests: they are intermediate to make, not to us.
.SECONDARY:

-include $(patsubst %.o,%.d,$(call obj,$(CORE_SRC) $(FS_SRC) $(UNIT_SRC) $(UTIL_SRC) $(CRASH_SRC))) $(HELPER_PROGRAMS:=.d) $(CRASH_DISK).d

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
TEST_TIMEOUT ?= 240
PROVE = perl -Itests -S prove --exec 'timeout -k 20 $(TEST_TIMEOUT)' --formatter TapCount
TEST_ENV = CMOCKA_MESSAGE_OUTPUT=TAP MODE=$(MODE) MSYNCFS='$(abspath $(PROGRAM))' \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

test-programs: $(PROGRAM) $(UNIT_PROGRAMS) $(CRASH_PROGRAM) $(HELPER_PROGRAMS)

unit: $(UNIT_PROGRAMS) $(CRASH_PROGRAM)  ## build and run the unit tests (no root, no packages fetched)
	@$(TEST_ENV) $(PROVE) -j$(TEST_JOBS) $(UNIT_PROGRAMS) $(CRASH_PROGRAM)

check: unit  ## the tests that need neither root nor a mount

test:  ## get what is missing, build, run every test; closes with "N passed, N failed"
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) test-programs
	@$(MAKE) test-run

TESTS ?= $(UNIT_PROGRAMS) $(CRASH_PROGRAM) $(MOUNT_TESTS)
test-run: test-programs
	@$(TEST_ENV) $(PROVE) -j$(TEST_JOBS) $(TESTS)

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

crash-disk: test-programs $(CRASH_DISK)  ## the store on ext4 and XFS images that are copied under load, mounted and checked (root)
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(TEST_ENV) $(PROVE) tests/crash/disk.sh

sanitize:  ## the same tests under ASan+UBSan, then under TSan
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) MODE=asan test-run TEST_TIMEOUT=900
	@$(MAKE) MODE=tsan test-run TEST_TIMEOUT=900

lint:  ## static checks with the tools that are there, include directions, paths in documents
	@CC='$(CC)' tests/lint.sh '$(OUR_CPPFLAGS) $(FUSE_CFLAGS)'

# -------------------------------------------------------------------------------------------------------------- bench
# The bench has rules of its own: it builds peers that nothing else needs.
bench:  ## get what is missing, build, measure against the peers
	@$(MAKE) deps DEPS='$(DEPS_BUILD) $(DEPS_BENCH)'
	@$(MAKE) all
	@$(MAKE) -f tests/bench/bench.mk bench MODE=$(MODE) BUILD='$(B)' CC='$(CC)' BENCH_CORE_LIBS='$(CORE_LIBS) -lpthread'

# ------------------------------------------------------------------------------------------------------------ install
# "source|destination|mode", one word each: install and uninstall read the same list. @BINDIR@-like words in scripts
# and units are filled in on the way: the line `bindir=...` of the scripts, /usr/local/bin in the units.
INSTALL_LIST := \
	$(PROGRAM)|$(BINDIR)/msyncfs|755 \
	mount-scripts/mount.msyncfs|$(HELPERDIR)/mount.msyncfs|755 \
	mount-scripts/umount.msyncfs|$(HELPERDIR)/umount.msyncfs|755 \
	mount-scripts/fsck.msyncfs|$(HELPERDIR)/fsck.msyncfs|755 \
	mount-scripts/msyncfs@.service|$(UNITDIR)/msyncfs@.service|644 \
	mount-scripts/srv-data.mount|$(DOCDIR)/examples/srv-data.mount|644 \
	mount-scripts/fstab.example|$(DOCDIR)/examples/fstab.example|644 \
	LICENSE|$(DOCDIR)/LICENSE|644 \
	$(foreach f,$(wildcard README.md),$(f)|$(DOCDIR)/$(f)|644) \
	$(foreach f,$(MAN1),$(f)|$(MANDIR)/man1/$(notdir $(f))|644) \
	$(foreach f,$(MAN8),$(f)|$(MANDIR)/man8/$(notdir $(f))|644)
# umount(8) sees the type fuse.msyncfs and looks for a helper of that name; so does `mount -t fuse.msyncfs`.
INSTALL_LINKS := mount.fuse.msyncfs|mount.msyncfs umount.fuse.msyncfs|umount.msyncfs

install: $(PROGRAM)  ## install under PREFIX (and mount helpers in HELPERDIR=/sbin); DESTDIR for packagers
	@set -e; for e in $(foreach e,$(INSTALL_LIST),'$(e)'); do \
		IFS='|'; set -- $$e; unset IFS; \
		[ '$(V)' = 0 ] || echo "install $$1 $(DESTDIR)$$2"; \
		$(INSTALL) -d "$(DESTDIR)$${2%/*}"; \
		case $$1 in \
		mount-scripts/*) \
			sed -e 's|^bindir=.*|bindir=$(BINDIR)|' -e 's|/usr/local/bin/|$(BINDIR)/|g' \
				-e 's|/sbin/umount\.msyncfs|$(HELPERDIR)/umount.msyncfs|g' "$$1" >'$(B)/install.tmp'; \
			$(INSTALL) -m "$$3" '$(B)/install.tmp' "$(DESTDIR)$$2"; rm -f '$(B)/install.tmp';; \
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
