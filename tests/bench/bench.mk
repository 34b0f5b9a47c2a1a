# SPDX-License-Identifier: MIT
#
# The bench: its programs and `make bench`. The top Makefile includes this; from the root of the tree it also works
# alone, `make -f tests/bench/bench.mk bench`, against a library and a daemon that are built already.

MODE     ?= release
BUILD    ?= build/$(MODE)
CORE_LIB ?= $(BUILD)/libmsyncfs_core.a
CC       ?= cc
CFLAGS   ?= -O2 -g
ALL_CFLAGS ?= -std=gnu11 -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wformat=2 -Wvla -Wundef \
	      -Wpointer-arith -D_GNU_SOURCE -Icore -I. $(CFLAGS)

BENCH_BUILD := $(BUILD)/tests/bench
BENCH_PROGS := $(BENCH_BUILD)/limit $(BENCH_BUILD)/fsbench $(BENCH_BUILD)/engine $(BENCH_BUILD)/netbench
BENCH_FUSE_CFLAGS = $(shell pkg-config --cflags fuse3)
BENCH_FUSE_LIBS   = $(shell pkg-config --libs fuse3)
BENCH_PEER_LIBS   = -llmdb -lsqlite3
BENCH_CORE_LIBS  ?= -lxxhash -lpthread

.PHONY: bench bench-remote bench-programs
bench: bench-programs ## measure against ext4, tmpfs, bindfs, limit, LMDB, SQLite (QUICK=1: short)
	BUILD=$(BUILD) tests/bench/run.sh

bench-remote: bench-programs ## measure remote mounts, against redis, etcd and glusterfs where they are (QUICK=1: short)
	BUILD=$(BUILD) tests/bench/remote.sh

bench-programs: $(BENCH_PROGS)

$(BENCH_BUILD)/limit: tests/bench/limit.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(BENCH_FUSE_CFLAGS) $(LDFLAGS) -o $@ $< $(BENCH_FUSE_LIBS)

$(BENCH_BUILD)/fsbench: tests/bench/fsbench.c tests/bench/key.h
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< -lpthread

$(BENCH_BUILD)/netbench: tests/bench/netbench.c
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< -lpthread

$(BENCH_BUILD)/engine: tests/bench/engine.c tests/bench/key.h $(CORE_LIB)
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< $(CORE_LIB) $(BENCH_PEER_LIBS) $(BENCH_CORE_LIBS)
