#!/usr/bin/env bash
# The whole way from a checkpoint to scored predictions on this machine, with tools/valid.py's accuracy beside it:
# export, preprocess, infer, score, evaluate. Fails where the two do not get the same pictures right, in number.
#   bash test/offline_chain.sh --data_path=DIR --checkpoint=FILE [options]        --help lists them with their defaults
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

step() { # step NAME COMMAND...
  printf '== %s\n' "$1"
  "${@:2}" || {
    status=$?
    printf 'the chain stopped at: %s (exit code %s)\n' "$1" "$status" >&2
    exit "$status"
  }
}

read_options chain cfg= bs=16 -- "$@"
checkpoint=${value[checkpoint]}
[ -n "$checkpoint" ] || fail '--checkpoint=FILE is needed: the weights to take through the chain'
[ -f "$checkpoint" ] || fail "--checkpoint $checkpoint: there is no such file"
val=${value[data_path]}/${value[val_set]}
[ -d "$val" ] || fail "--data_path ${value[data_path]} has no folder ${value[val_set]} with the pictures (--val_set)"

find_python
cd -- "$repo_root"
if [ "${etp_running_flag:-}" != true ]; then
  # shellcheck source=env_npu.sh
  source test/env_npu.sh
fi
if [ -n "${value[cfg]}" ]; then name=$(cfg_name); else name=$(basename -- "$(dirname -- "$checkpoint")"); fi
out=${value[out]:-output/offline_chain/$name}
onnx=$out/hrnet.onnx bins=$out/bins results=$out/results
if [ -e "$results" ] && ! [ -e "$results/.offline_chain" ]; then
  fail "--out=$out has a folder results that is not of an earlier chain: move it, or give another --out"
fi
mkdir -p -- "$out"

# Without a --cfg both programs take what the weights record, or the yaml beside them.
program=("$PYTHON" hrnet_pth2onnx.py --input "$checkpoint" --output "$onnx" --batch "${value[bs]}" --opset "${value[opset]}")
pass_on cfg
step 'checkpoint to ONNX' "${program[@]}" "${overrides[@]}"
# What is left of an earlier chain may be of other pictures or another size: bins that fit are kept, results are not.
rm -rf -- "$results"
mkdir -- "$results"
: >"$results/.offline_chain"
step 'pictures to bins' "$PYTHON" imagenet_torch_preprocess.py hrnet "$val" "$bins" --recipe "$onnx"
for labels in "${value[data_path]}/val_label.txt" "$val/val_label.txt" "$out/val_label.txt"; do
  if [ -f "$labels" ]; then break; fi
done
if "$PYTHON" -c 'import sys; from lib.data.picture_files import entries; sys.exit(not entries(sys.argv[1]).folders)' "$val"; then
  labels=$out/val_label.txt
  step 'labels from the class folders' "$PYTHON" tools/make_labels.py "$val" "$labels" --classes "$onnx"
fi
step 'inference' "$PYTHON" tools/onnx_infer.py --model "$onnx" --input "$bins" --output "$results" --output_dirname run \
  --outfmt "${value[outfmt]}"
step 'score' "$PYTHON" imagenet_acc_eval.py "$results/run" "$labels" "$out" result.json
program=("$PYTHON" tools/valid.py "${value[data_path]}" --testModel "$checkpoint" --out "$out/eval" --fp32)
pass_on cfg bs workers device device_id
step 'tools/valid.py' "${program[@]}" DATASET.TEST_SET "${value[val_set]}" DATASET.VAL_SHARE 0 "${overrides[@]}"

printf '== comparison\n'
"$PYTHON" - "$results/run" "$labels" "$out/eval/result.json" <<'END'
import json, pathlib, sys

from lib.offline.scores import score_folder

predictions, labels, evaluation = map(pathlib.Path, sys.argv[1:])
scores = score_folder(predictions, labels)
offline = {"images": scores.num_images, "top-1": scores.num_hits(1), "top-5": scores.num_hits(5)}
result = json.loads(evaluation.read_text())
keys = ("num_images_used", "num_correct_top1", "num_correct_top5")
in_torch = dict(zip(offline, (result[key] for key in keys)))
print(f"offline chain  {offline}")
print(f"tools/valid.py {in_torch}")
if offline != in_torch:
    sys.exit("[Error] the counts differ: what is deployed is not what was trained")
END
