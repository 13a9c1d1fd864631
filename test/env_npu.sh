# shellcheck shell=bash
# Prepares the environment for Ascend NPUs: `source test/env_npu.sh`. Safe under `set -eu`, and harmless without an NPU.
# A CANN that is set up already, ASCEND_HOME_PATH or ASCEND_TOOLKIT_HOME naming a folder that is there, is left alone.
# Where CANN is looked for otherwise can be changed:
#   CANN_INFO_FILE  the installer's note, whose line Install_Path=DIR comes first   (/etc/Ascend/ascend_cann_install.info)
#   ASCEND_ROOT     the directory tried after it                                    (/usr/local/Ascend)

# Prints the set_env.sh of the first CANN found. cann/ is the layout from 8.5 on, ascend-toolkit/ and nnae/ the older ones.
_find_cann() {
  local note=${CANN_INFO_FILE:-/etc/Ascend/ascend_cann_install.info} installed='' root script
  if [ -r "$note" ]; then
    installed=$(sed -n 's/^[[:space:]]*Install_Path[[:space:]]*=[[:space:]]*//p' "$note" | sed 's/[[:space:]]*$//;q')
  fi
  for root in "$installed" "${ASCEND_ROOT:-/usr/local/Ascend}"; do
    [ -n "$root" ] || continue
    for script in cann/set_env.sh ascend-toolkit/set_env.sh ascend-toolkit/latest/set_env.sh nnae/set_env.sh; do
      if [ -r "$root/$script" ]; then
        printf '%s\n' "$root/$script"
        return
      fi
    done
  done
}

# The vendor's script reads unset variables and runs commands that may fail: it is not run under our -eu.
_source_cann() {
  local script=$1 strict=$- code=0
  set --
  set +eu
  # shellcheck disable=SC1090
  source "$script"
  code=$?
  case $strict in *e*) set -e ;; esac
  case $strict in *u*) set -u ;; esac
  if [ "$code" -ne 0 ]; then
    printf '[Warning] %s ended with code %s; the NPU may not be usable\n' "$script" "$code" >&2
  fi
}

_set_npu_variables() {
  # Kernels are handed to the device by a second thread, so that Python runs ahead of it. Level 2, which Ascend advises where
  # the host is the limit, moves more work there and takes more memory at its peak; tools/pick_speed.py tries it. With
  # ASCEND_LAUNCH_BLOCKING=1 there is no such thread, whatever stands here.
  export TASK_QUEUE_ENABLE="${TASK_QUEUE_ENABLE:-1}"
  # Threads stay on the cores next to their own card.
  export CPU_AFFINITY_CONF="${CPU_AFFINITY_CONF:-1}"
  # Memory blocks grow in place: fewer out-of-memory ends from fragmentation when sizes change between training and evaluation.
  export PYTORCH_NPU_ALLOC_CONF="${PYTORCH_NPU_ALLOC_CONF:-expandable_segments:True}"
  # Two view operations in a row on one tensor become one copy.
  export COMBINED_ENABLE="${COMBINED_ENABLE:-1}"
  # Seconds that a card waits for the others: the first step compiles operators, at a different pace on each machine.
  export HCCL_CONNECT_TIMEOUT="${HCCL_CONNECT_TIMEOUT:-1800}"
  # No list of permitted addresses is kept, so there is none to check.
  export HCCL_WHITELIST_DISABLE="${HCCL_WHITELIST_DISABLE:-1}"
  # The cards that may be used, as the user gave them; never chosen here, since --device_id counts within them.
  if [ -n "${ASCEND_RT_VISIBLE_DEVICES:-}" ]; then export ASCEND_RT_VISIBLE_DEVICES; fi
}

# Cards write only errors to their own log. The tool comes with the driver: a container often lacks it, or may not use it.
_quiet_device_logs() {
  local card
  command -v msnpureport >/dev/null 2>&1 || return 0
  for card in /dev/davinci[0-9]*; do
    [ -e "$card" ] || continue
    msnpureport -g error -d "${card#/dev/davinci}" >/dev/null 2>&1 || true
  done
}

_prepare_npu() {
  local script home=${ASCEND_HOME_PATH:-${ASCEND_TOOLKIT_HOME:-}} # as tools/doctor.py reads them
  script=$(_find_cann)
  if [ -n "$home" ] && [ -d "$home" ]; then
    printf 'env_npu.sh: CANN from the environment as it is, %s\n' "$home"
  elif [ -n "$script" ]; then
    printf 'env_npu.sh: CANN from %s\n' "$script"
    _source_cann "$script"
  else
    printf 'env_npu.sh: no CANN found by %s or in %s; going on with CUDA or CPU\n' \
      "${CANN_INFO_FILE:-/etc/Ascend/ascend_cann_install.info}" "${ASCEND_ROOT:-/usr/local/Ascend}"
    # An installed torch_npu would otherwise make `import torch` fail for want of CANN's libraries.
    export TORCH_DEVICE_BACKEND_AUTOLOAD="${TORCH_DEVICE_BACKEND_AUTOLOAD:-0}"
    return 0
  fi
  _set_npu_variables
  _quiet_device_logs
}

_prepare_npu
