#!/usr/bin/env bash
# Measures the training speed on eight cards in 200 steps; no evaluation, no weights.
#   bash test/train_performance_8p.sh --data_path=DIR [options]        --help lists them with their defaults
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# RANK_SIZE is where cluster tools say how many cards a machine has.
train_and_report cards="${RANK_SIZE:-8}" train_epochs=1 stop_step=200 -- "$@"
