#!/usr/bin/env bash
# Trains a network on eight cards, 100 epochs, and reports its accuracy and speed. Several machines: --nproc --dn --addr.
#   bash test/train_full_8p.sh --data_path=DIR [options]        --help lists them with their defaults
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# RANK_SIZE is where cluster tools say how many cards a machine has.
train_and_report cards="${RANK_SIZE:-8}" train_epochs=100 -- "$@"
