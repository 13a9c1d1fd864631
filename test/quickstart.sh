#!/usr/bin/env bash
# From a clean checkout to a trained network, its ONNX file and scored predictions in minutes, without any download of
# images: trains on scikit-learn's 8x8 digits.
#   bash test/quickstart.sh [--device cpu] [any other argument of tools/train.py]        --help shows this text
# What is missing is installed first. The run is in output/digits/quickstart_digits, or where --out says.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/setup_python.sh"
help_if_asked "${BASH_SOURCE[0]}" "$@"

ensure_python torch yacs yaml numpy PIL tensorboardX tqdm matplotlib jinja2 safetensors sklearn \
  onnx onnxruntime -- -r "$repo_root/requirements.txt" -r "$repo_root/requirement_for_infer.txt" scikit-learn -c "$repo_root/requirements_dev.txt"
cd -- "$repo_root"

run_folder=output/digits/quickstart_digits
same_in_both=() # what changes the figures has to reach valid.py too
device=()       # the offline chain is float32 on every device
arguments=("$@")
for i in "${!arguments[@]}"; do
  case ${arguments[i]} in
    --out) run_folder=${arguments[i + 1]:-} ;;
    --out=*) run_folder=${arguments[i]#--out=} ;;
    --device | --device_id) device+=("${arguments[i]}=${arguments[i + 1]:-}") ;;
    --device=* | --device_id=*) device+=("${arguments[i]}") ;;
    --precision) same_in_both+=("${arguments[i]}" "${arguments[i + 1]:-}") ;;
    --precision=* | --fp32 | --hf32) same_in_both+=("${arguments[i]}") ;;
  esac
done

cfg=experiments/quickstart_digits.yaml
"$PYTHON" tools/make_digits.py data/digits
"$PYTHON" tools/train.py data/digits --cfg "$cfg" --out "$run_folder" "$@"
"$PYTHON" tools/valid.py data/digits --testModel "$run_folder/model_best.pth.tar" \
  --out "$run_folder/eval" "${device[@]}" "${same_in_both[@]}"

"$PYTHON" - "$run_folder" <<'END'
import json, pathlib, sys

folder = pathlib.Path(sys.argv[1])
trained = json.loads((folder / "result.json").read_text())["best_accuracy_top1"]
evaluated = json.loads((folder / "eval" / "result.json").read_text())["accuracy_top1"]
print(f"accuracy    tools/train.py {trained:.3f} %, tools/valid.py {evaluated:.3f} %")
if trained != evaluated:
    sys.exit("[Error] the two accuracies differ: the weights that were saved are not those that were measured")
if evaluated < 95:
    sys.exit("[Error] below 95 %: with the default settings this points to a broken installation")
END
PYTHON=$PYTHON bash test/offline_chain.sh --data_path=data/digits --checkpoint="$run_folder/model_best.pth.tar" \
  --out="$run_folder/offline" --workers=0 "${device[@]}"

printf '%-11s %s\n' weights "$run_folder/model_best.pth.tar" curves "$run_folder/curves.png" \
  log "$run_folder/metrics.jsonl" tensorboard "$run_folder/tensorboard" onnx "$run_folder/offline/hrnet.onnx"
