#!/usr/bin/env bash
# Trains a network on one card, 100 epochs, and reports its accuracy and speed.
#   bash test/train_full_1p.sh --data_path=DIR [options]        --help lists them with their defaults
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

train_and_report cards=1 train_epochs=100 -- "$@"
