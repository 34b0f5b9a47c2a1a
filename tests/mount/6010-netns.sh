#!/bin/bash
# SPDX-License-Identifier: MIT
# A share of tests/remote/netns.sh: one round of the trouble that takes little time. `make remote-test` is the whole.
# shellcheck source=../remote/netns.sh
ROUNDS=1 WRITERS=1 KINDS='half-down kill-replica kill-primary upgrade move' . "$(dirname "$0")/../remote/netns.sh"
