# shellcheck shell=bash
# Chooses the Python that the scripts of this repository run with, and fills it where asked. Sourced; defines functions.
#   help_if_asked SCRIPT ARGUMENT...                    prints the comment that SCRIPT begins with and leaves, if asked to
#   find_python                                         sets PYTHON; installs nothing
#   ensure_python IMPORT_NAME... -- PIP_ARGUMENT...     sets PYTHON to one that imports every name; installs only then
# A PYTHON that is already set is the user's choice: it is used as it is and nothing is installed into it.

repo_root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

help_if_asked() {
  local word
  for word in "${@:2}"; do
    if [[ $word == --help || $word == -h ]]; then
      sed -n '1d; /^#/!q; s/^# \?//p' "$1"
      exit 0
    fi
  done
}

# can_import PYTHON NAME...: shows why not on stderr. A torch_npu without CANN must not make an installed torch look absent.
can_import() {
  local python=$1 names
  shift
  names=$(IFS=, && printf '%s' "$*")
  TORCH_DEVICE_BACKEND_AUTOLOAD=0 "$python" -c "import $names"
}

find_python() {
  case ${PYTHON:-} in
    /*) ;;
    */*) PYTHON=$PWD/$PYTHON ;; # the callers change directory afterwards
    '')
      PYTHON=python3
      if [ -x "$repo_root/.venv/bin/python" ] && ! can_import python3 torch 2>/dev/null; then
        PYTHON=$repo_root/.venv/bin/python
      fi
      ;;
  esac
}

ensure_python() {
  local names=() reason
  while [ "$1" != -- ]; do
    names+=("$1")
    shift
  done
  shift
  if [ -n "${PYTHON:-}" ]; then
    find_python
    reason=$(can_import "$PYTHON" "${names[@]}" 2>&1) && return
    printf '[Error] PYTHON=%s lacks what is needed (%s): run %s -m pip install %s, or unset PYTHON\n' \
      "$PYTHON" "${reason##*$'\n'}" "$PYTHON" "$*" >&2
    return 1
  fi
  PYTHON=python3
  can_import "$PYTHON" "${names[@]}" 2>/dev/null && return
  PYTHON=${VIRTUAL_ENV:-$repo_root/.venv}/bin/python
  if [ -x "$PYTHON" ] && can_import "$PYTHON" "${names[@]}" 2>/dev/null; then return; fi
  if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then # absent, or left half-made by an interrupted start
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
      printf '[Error] python3 is %s; 3.10 or newer is needed\n' "$(python3 --version 2>&1)" >&2
      return 1
    fi
    python3 -m venv "${PYTHON%/bin/python}" || return
  fi
  printf 'installing into %s: %s\n' "${PYTHON%/bin/python}" "$*"
  "$PYTHON" -m pip install --disable-pip-version-check "$@" || return
  reason=$(can_import "$PYTHON" "${names[@]}" 2>&1) && return
  printf '[Error] %s still lacks what is needed: %s\n' "$PYTHON" "${reason##*$'\n'}" >&2
  return 1
}
