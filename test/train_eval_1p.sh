#!/usr/bin/env bash
# Evaluates weights on one card and reports their accuracy.
#   bash test/train_eval_1p.sh --data_path=DIR [options]        --help lists them with their defaults
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

evaluate_and_report cards=1 -- "$@"
