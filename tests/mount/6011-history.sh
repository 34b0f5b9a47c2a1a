#!/bin/bash
# SPDX-License-Identifier: MIT
# A share of tests/remote/history.sh. `make remote-test` is the whole.
# shellcheck source=../remote/history.sh
SECONDS_EACH=3 ROUNDS=1 . "$(dirname "$0")/../remote/history.sh"
