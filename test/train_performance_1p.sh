#!/usr/bin/env bash
# Measures the training speed on one card in 200 steps; no evaluation, no weights.
#   bash test/train_performance_1p.sh --data_path=DIR [options]        --help lists them with their defaults
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

train_and_report cards=1 train_epochs=1 stop_step=200 -- "$@"
