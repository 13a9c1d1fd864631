# shellcheck shell=bash
# Shared by the launchers of this folder: read the options, run one program under watch, report. Sourced; starts nothing itself.
# Columns of a log are never parsed here: figures come from result.json, through tools/case_report.py.

declare -A kind=() value=() meaning=() taken=() # by option name; what it was given as
declare -a names=() overrides=() program=()
caller=$PWD # what a relative path of the user starts from
source "$(dirname -- "${BASH_SOURCE[0]}")/setup_python.sh"

fail() { # fail MESSAGE: the user gave something that cannot be used
  printf '[Error] %s\n' "${1//[[:cntrl:]]/?}" >&2 # what the user gave may hold what moves the cursor
  exit 2
}

# ---- options ----

# name | kind | default | meaning. An empty default leaves the choice to the program.
option_table() { # option_table train|eval|chain
  cat <<'END'
data_path | folder | | data-set root holding train/ and val/ (required)
cfg | file | experiments/cls_hrnet_w18_sgd_lr5e-2_wd1e-4_bs32_x100.yaml | experiment yaml
bs | count | 256 | images a batch and card
batch_size | same:bs | | another name of --bs
workers | workers | | data-loading processes a card; unset or -1: cores / cards
device | text | | auto, npu, cuda or cpu; unset: auto
device_id | index | 0 | which card; ASCEND_DEVICE_ID in the environment wins
END
  if [ "$1" = chain ]; then
    cat <<'END'
checkpoint | file | | weights to take through the chain (required)
val_set | text | val | folder of the pictures in it
out | folder | | folder for everything made; unset: output/offline_chain/<cfg name, or the name of the weights' folder>
opset | index | 0 | of the ONNX file; 0: 11, for ATC
outfmt | text | TXT | kind of prediction files: TXT, BIN or NPY
END
    return
  fi
  cat <<'END'
cards | count | 1 | processes on this machine, one a card
hf32 | flag | | HF32/TF32 instead of mixed precision; ALLOW_HF32=1 in the environment is the same
fp32 | flag | | FP32 instead of mixed precision; ALLOW_FP32=1 in the environment is the same
END
  if [ "$1" = train ]; then
    cat <<'END'
addr | text | 127.0.0.1 | address of the master node
port | count | | its port; unset: a free one, with several machines 29500
nproc | count | 1 | machines in all
dn | index | 0 | rank of this machine, 0..nproc-1
lr | rate | 0.1 | base learning rate for one card; it is multiplied by the number of cards
train_epochs | count | 100 | epochs
epochs | same:train_epochs | | another name of --train_epochs
stop_step | count | | measure the speed and stop after this step; TRUE means 200
resume | file | | checkpoint to go on from
auto_resume | flag | | go on from the run folder's own checkpoint where there is one
pretrained | file | | weights to start from: a file, a name of tools/weights.py, or an address
max_restarts | index | | how often failed processes are started again; unset: never
seed | index | | random seed
out | folder | | run folder; unset: output/imagenet/<cfg name>
END
  else
    cat <<'END'
checkpoint | file | | weights to evaluate; unset: output/imagenet/<cfg name>/model_best.pth.tar
testModel | same:checkpoint | | another name of --checkpoint
out | folder | | folder for result.json; unset: output/imagenet/<cfg name>/eval
addr | unused | | training only
nproc | unused | | training only
dn | unused | | training only
lr | unused | | training only
train_epochs | unused | | training only
epochs | unused | | training only
stop_step | unused | | training only
END
  fi
}

usage() {
  local name
  printf 'Usage: bash test/%s --data_path=DIR [--key=value | --key value ...] [-- CONFIG_KEY VALUE ...]\n' "${0##*/}"
  for name in "${names[@]}"; do
    printf '  --%-13s %s%s\n' "$name" "${meaning[$name]}" "${value[$name]:+ [${value[$name]}]}"
  done
}

# ALLOW_FP32=0 means no.
is_yes() { # is_yes NAME WORD
  case ${2,,} in
    1 | true | yes | on) return 0 ;;
    '' | 0 | false | no | off) return 1 ;;
    *) fail "$1=$2: give 1, true, yes or on for yes, and 0, false, no or off for no" ;;
  esac
}

check_number() { # check_number NAME LABEL
  local pattern wanted
  case ${kind[$1]} in
    count) pattern='^[1-9][0-9]{0,8}$' wanted='a whole number from 1' ;;
    index) pattern='^(0|[1-9][0-9]{0,8})$' wanted='a whole number from 0' ;;
    workers) pattern='^(-1|0|[1-9][0-9]{0,8})$' wanted='a whole number from 0, or -1 for cores / cards' ;;
    rate) pattern='^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$' wanted='a number from 0' ;;
    *) return 0 ;;
  esac
  [[ -z ${value[$1]} || ${value[$1]} =~ $pattern ]] || fail "$2 must be $wanted, got \"${value[$1]}\""
}

# A relative path starts in the caller's directory. A file that is not there may stand in the repository, or be a name.
from_caller() { # from_caller KIND TEXT
  local path=$2
  case $path in
    '' | /* | http://* | https://*) ;;
    \~/*) path=$HOME${path#\~} ;; # in --data_path=~/images the shell leaves the ~ as it is
    *) path=$caller/$path ;;
  esac
  if [[ $1 == folder || ($1 == file && -e $path) ]]; then printf '%s' "$path"; else printf '%s' "$2"; fi
}

refuse_option() { # refuse_option NAME: names the nearest option, and all there are
  local nearest code='import sys; sys.path.insert(0, sys.argv[1]); from lib.runtime.cli import nearest_option
print(nearest_option(sys.argv[2], sys.argv[3:]))'
  [[ $1 != [A-Z]*.* ]] || fail "unknown option \"--$1\": config overrides come after --, as -- $1 VALUE"
  nearest=$(python3 -c "$code" "$repo_root" "$1" "${names[@]}" 2>/dev/null) || nearest='' # without it, as before
  if [ -n "$nearest" ]; then nearest=": did you mean --$nearest? Allowed:"; else nearest=', allowed:'; fi
  fail "unknown option \"--$1\"$nearest$(printf ' --%s' "${names[@]}")"
}

take_arguments() {
  local name given
  while (($# > 0)); do
    case $1 in
      --)
        overrides=("${@:2}")
        break
        ;;
      --*) name=${1#--} name=${name%%=*} ;;
      *) fail "unexpected argument \"$1\": options look like --key=value, config overrides (KEY VALUE) come after --" ;;
    esac
    # The pattern first: a subscript made of the user's text would be evaluated.
    if ! [[ $name =~ ^[A-Za-z0-9_]+$ && -n ${kind[$name]:-} ]]; then refuse_option "$name"; fi
    if [[ $1 == *=* ]]; then
      given=${1#*=}
    elif [[ ${kind[$name]} == flag ]]; then
      given=1
    elif (($# > 1)) && [[ $2 != --* ]]; then
      given=$2
      shift
    else
      given=''
    fi
    shift
    [[ -n $given || $name == data_path ]] || fail "--$name needs a value: --$name=VALUE"
    [[ ${kind[$name]} != same:* ]] || name=${kind[$name]#same:}
    if [[ ${kind[$name]} == unused ]]; then
      printf -- '--%s means nothing for an evaluation and is left out\n' "$name"
    else
      value[$name]=$(from_caller "${kind[$name]}" "$given")
      if [[ ${taken[$name]:-$given} != "$given" ]]; then
        printf '[Warning] --%s is given twice: "%s" counts, not "%s"\n' "$name" "${given//[[:cntrl:]]/?}" \
          "${taken[$name]//[[:cntrl:]]/?}" >&2
      fi
      taken[$name]=$given
    fi
  done
}

check_values() {
  local name variable
  if [ -z "${value[data_path]}" ]; then
    printf '[Error] para "data_path" must be confing\n' # on stdout and in these words: other scripts look for them
    exit 1
  fi
  value[device_id]=${ASCEND_DEVICE_ID:-${value[device_id]}}
  case ${value[stop_step]:-} in [Tt][Rr][Uu][Ee]) value[stop_step]=200 ;; esac
  for variable in ALLOW_HF32 ALLOW_FP32; do # an option given on the command line wins over them
    name=${variable#ALLOW_} name=${name,,}
    if is_yes "$variable" "${!variable:-}"; then value[$name]=${value[$name]:-1}; fi
  done
  for name in "${names[@]}"; do
    if [[ $name == device_id && -n ${ASCEND_DEVICE_ID:-} ]]; then
      check_number device_id ASCEND_DEVICE_ID
    else
      check_number "$name" "--$name"
    fi
    if [[ ${kind[$name]} == flag ]]; then
      if is_yes "--$name" "${value[$name]}"; then value[$name]=1; else value[$name]=''; fi
    fi
  done
  [[ -z ${value[hf32]:-} || -z ${value[fp32]:-} ]] ||
    fail 'hf32 and fp32 exclude each other: give one of --hf32 (ALLOW_HF32) and --fp32 (ALLOW_FP32), or neither'
  ((${value[dn]:-0} < ${value[nproc]:-1})) ||
    fail "--dn must be below --nproc: machine ${value[dn]} of ${value[nproc]}, counted from 0"
  ((${#overrides[@]} % 2 == 0)) ||
    fail "config overrides come in pairs, KEY VALUE; after -- there are ${#overrides[@]} words: ${overrides[*]}"
}

read_options() { # read_options train|eval|chain [NAME=DEFAULT ...] -- ARGUMENT...
  local name row_kind default text
  while IFS=' |' read -r name row_kind default text; do
    names+=("$name")
    kind[$name]=$row_kind value[$name]=$default meaning[$name]=$text
  done < <(option_table "$1")
  shift
  while [ "$1" != -- ]; do
    value[${1%%=*}]=${1#*=}
    shift
  done
  shift
  local word
  for word in "$@"; do case $word in --help | -h) usage && exit 0 ;; esac done
  take_arguments "$@"
  check_values
}

# ---- one run ----

keep_to_one_run() { # the folder is emptied at each start, but not under a run that still writes there
  local lock=$output.lock
  mkdir -p -- "${output%/*}"
  exec 9>"$lock"
  if command -v flock >/dev/null && ! flock -n 9; then
    fail "another launcher is running with $output: wait for it, or give another --device_id"
  fi
}

prepare() { # prepare LOG_PREFIX: sets output (a fresh folder) and log
  find_python
  cd -- "$repo_root" || exit
  # The program gets flags, decided above; what the environment says must not be added to them.
  unset ALLOW_HF32 ALLOW_FP32
  export ASCEND_DEVICE_ID=${value[device_id]} RANK_SIZE=${value[cards]}
  export PYTHONUNBUFFERED=1 # lines appear when they are written, and none is lost in a kill
  printf 'device id is %s\n' "$ASCEND_DEVICE_ID"
  if [ "${etp_running_flag:-}" != true ]; then
    # shellcheck source=env_npu.sh
    source test/env_npu.sh
  fi
  output=test/output/$ASCEND_DEVICE_ID
  # Machines often share this checkout: each has a folder of its own, and none clears another's.
  if ((${value[dn]:-0} > 0)); then output+=/node_${value[dn]}; fi
  log=$output/$1_$ASCEND_DEVICE_ID.log
  keep_to_one_run
  if [ -d "$output" ]; then find "$output" -mindepth 1 -maxdepth 1 ! -name 'node_*' -exec rm -rf -- {} +; fi
  mkdir -p -- "$output"
  : >"$output/.started"
}

pass_on() { # pass_on NAME...: adds the options that have a value to the program's command line
  local name
  for name in "$@"; do
    if [ -z "${value[$name]}" ]; then continue; fi
    program+=("--$name")
    if [[ ${kind[$name]} != flag ]]; then program+=("${value[$name]}"); fi
  done
}

forward() { # forward SIGNAL: the program saves its state and chooses its exit code
  signal=$1 num_signals=$((num_signals + 1))
  if [ -n "$program_pid" ]; then kill -s "$1" "$program_pid" 2>/dev/null || true; fi
}

# Runs the program with its output on the console and in the log; sets status to its exit code.
watch_program() {
  local tee_pid log_fd num_seen
  # tee has to outlive a signal sent to the whole group: the program still has things to say then.
  exec {log_fd}> >(trap '' HUP INT TERM && exec tee -i -- "$log")
  tee_pid=$!
  signal='' num_signals=0 program_pid=''
  trap 'forward INT' INT
  trap 'forward TERM' TERM
  trap 'forward TERM' HUP # a lost terminal: stop as on SIGTERM, state saved
  set -m # without job control the shell makes background programs deaf to SIGINT; and a Ctrl-C reaches it once, from us
  "${program[@]}" </dev/null >&"$log_fd" 2>&1 {log_fd}>&- &
  program_pid=$!
  set +m
  exec {log_fd}>&-
  if [ -n "$signal" ]; then forward "$signal"; fi # it came before there was a program
  while :; do
    num_seen=$num_signals status=0
    wait "$program_pid" || status=$?
    if ((num_signals == num_seen)); then break; fi # otherwise a signal ended the wait, not the program
  done
  trap - HUP INT TERM
  wait "$tee_pid" || true # the log is whole from here on
}

# Prints why the program failed, where it has not said so in an error line: an exception, or its last words.
failure_reason() {
  local found
  if ((status > 128)) && found=$(kill -l $((status - 128)) 2>/dev/null); then
    printf 'it was ended by SIG%s' "$found"
    return
  fi
  found=$(grep -ahE '^(\[rank[0-9]+\]: )?[A-Za-z_][A-Za-z0-9_.]*(Error|Exception)(:|$)' "$log") ||
    found=$(grep -a '[^[:space:]]' "$log" | tail -n 1) || found='it printed nothing'
  found=${found%%$'\n'*}
  printf '%s' "${found//[[:cntrl:]]/?}"
}

# Ends the launcher: with the program's exit code where that failed, else with the report.
finish() { # finish RESULT_FOLDER
  if ((status > 128)) && [ -n "$signal" ]; then # as was asked for
    printf 'the run was stopped by SIG%s with exit code %s (whole log: %s)\n' "$signal" "$status" "$log" >&2
    exit "$status"
  elif ((status != 0)) && grep -aq '^\[Error\]' "$log"; then # it is told on this console already
    printf 'the run failed with exit code %s (whole log: %s)\n' "$status" "$log" >&2
    exit "$status"
  elif ((status != 0)); then
    printf '[Error] the run failed with exit code %s: %s (whole log: %s)\n' "$status" "$(failure_reason)" "$log" >&2
    exit "$status"
  fi
  if ((${value[dn]:-0} > 0)); then
    printf 'machine %s of %s is done; node 0 has the results\n' "${value[dn]}" "${value[nproc]}"
    exit 0
  fi
  if ! [ "$1/result.json" -nt "$output/.started" ]; then # one of an earlier run is no result
    printf '[Error] the run ended well but wrote no %s\n' "$1/result.json" >&2
    exit 1
  fi
  "$PYTHON" tools/case_report.py "$1" "$output" --e2e_time_s "$SECONDS"
}

cfg_name() {
  local name=${value[cfg]##*/}
  printf '%s' "${name%.*}"
}

train_and_report() { # train_and_report [NAME=DEFAULT ...] -- ARGUMENT...
  local run_folder
  read_options train "$@"
  prepare train
  run_folder=${value[out]:-output/imagenet/$(cfg_name)}
  program=("$PYTHON" tools/train.py "${value[data_path]}" --out "$run_folder" --log_dir "$output")
  pass_on cfg cards nproc dn addr port lr workers train_epochs bs device device_id stop_step hf32 fp32
  pass_on resume auto_resume pretrained seed max_restarts
  program+=("${overrides[@]}")
  watch_program
  finish "$run_folder${value[stop_step]:+/performance}"
}

evaluate_and_report() { # evaluate_and_report [NAME=DEFAULT ...] -- ARGUMENT...
  local run_folder
  read_options eval "$@"
  prepare eval
  run_folder=output/imagenet/$(cfg_name)
  # Not asked for, it gives the folder's name alone: what the weights record, or the yaml beside them, says the rest.
  [ -n "${taken[cfg]:-}" ] || value[cfg]=''
  value[checkpoint]=${value[checkpoint]:-$run_folder/model_best.pth.tar}
  value[out]=${value[out]:-$run_folder/eval}
  program=("$PYTHON" tools/valid.py "${value[data_path]}" --testModel "${value[checkpoint]}" --log_dir "$output")
  pass_on cfg out cards bs workers device device_id hf32 fp32
  program+=("${overrides[@]}")
  watch_program
  finish "${value[out]}"
}
