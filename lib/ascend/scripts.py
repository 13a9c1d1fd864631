"""The files an Ascend machine is given: atc.sh, aipp.cfg and infer.sh."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.ascend.aipp import crop_margin, uint8_size
from lib.config.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe
from lib.export.atc_rules import ModelInput
from lib.runtime.files import write_atomically

# What --precision_mode_v2 takes (fp16 by default), and what its older twin --precision_mode does.
PRECISION_MODES = ("fp16", "origin", "cube_fp16in_fp32out", "mixed_float16", "mixed_bfloat16")
LEGACY_PRECISION_MODES = (
    "force_fp16",
    "force_fp32",
    "allow_fp32_to_fp16",
    "must_keep_origin_dtype",
    "allow_mix_precision",
)
# Those in which float32 weights and maps stay as wide; without any, they become float16.
WIDER_MODES = ("origin", "mixed_bfloat16", "force_fp32", "must_keep_origin_dtype")
_SOC_VERSION = re.compile(r"Ascend[0-9]{3}[A-Za-z0-9_]*")
_ATC_PATH = re.compile(r"[A-Za-z0-9_./\-\u4e00-\u9fff]+")
_NUM_LOOPS = 1000  # of the speed measurement
_USUAL_SIDE = 224  # what imagenet_torch_preprocess.py makes unless told otherwise

ATC, AIPP, INFER = "atc.sh", "aipp.cfg", "infer.sh"
_UMASK = "umask 022 # ais_bench refuses what others than the owner may write to"


def check_options(soc_version: str, precision_mode: str | None) -> None:
    """Raise ValueError for a chip or a precision that ATC does not know."""
    if not _SOC_VERSION.fullmatch(soc_version):
        raise ValueError(
            f"--soc_version {soc_version}: a name such as Ascend910A, Ascend310P3 or Ascend910B3 "
            "is needed: `Ascend` and the Name that npu-smi info shows"
        )
    allowed = (*PRECISION_MODES, *LEGACY_PRECISION_MODES)
    if precision_mode and precision_mode not in allowed:
        raise ValueError(f"--precision_mode {precision_mode} is not one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Conversion:
    """What to convert and how. Raises ValueError for values that ATC does not take."""

    onnx: Path
    folder: Path  # where the scripts, and later the .om files, stand
    image: ModelInput
    soc_version: str
    batches: tuple[int, ...]
    dynamic: bool = False  # one .om for all batches
    aipp: bool = False
    precision_mode: str | None = None  # None leaves ATC's default
    recipe: Recipe | None = None  # of the pictures; None: the usual one

    def __post_init__(self) -> None:
        check_options(self.soc_version, self.precision_mode)
        if not _ATC_PATH.fullmatch(self.model):
            raise ValueError(
                f"ATC takes letters, digits, `_`, `-` and `.` in file names, not {self.model!r}: "
                "rename the ONNX file or its folder"
            )

    @property
    def model(self) -> str:
        """The ONNX file as seen from the scripts' folder, so that both can move together."""
        return os.path.relpath(self.onnx, self.folder)

    def om_name(self, batch: int) -> str:
        """The .om for a batch, without its suffix."""
        return self.onnx.stem + ("_dynamic" if self.dynamic else f"_bs{batch}")


def atc_commands(plan: Conversion) -> list[str]:
    """Return ATC's command lines: one a batch, or one for all if the .om's batch is dynamic."""
    return [_atc_command(plan, batch) for batch in plan.batches[: 1 if plan.dynamic else None]]


def _atc_command(plan: Conversion, batch: int) -> str:
    side, first = plan.image.side, -1 if plan.dynamic else batch
    words = [
        "atc --framework=5",
        f"--model={plan.model}",
        "--input_format=NCHW",
        f'--input_shape="{plan.image.name}:{first},3,{side},{side}"',
        f"--output={plan.om_name(batch)}",
        "--output_type=FP32",
        "--log=error",
        f"--soc_version={plan.soc_version}",
    ]
    if plan.dynamic:
        words.append(f'--dynamic_batch_size="{",".join(map(str, plan.batches))}"')
    if plan.aipp:
        words.append(f"--insert_op_conf={AIPP}")
    if plan.precision_mode:
        option = "precision_mode_v2" if plan.precision_mode in PRECISION_MODES else "precision_mode"
        words.append(f"--{option}={plan.precision_mode}")
    return " ".join(words)


def atc_script(plan: Conversion) -> str:
    """Return atc.sh, which makes the .om files beside itself."""
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# Makes .om files of {plan.onnx.name} for {plan.soc_version}: bash {ATC}",
            "set -euo pipefail",
            _UMASK,
            'cd -- "$(dirname -- "${BASH_SOURCE[0]}")"',
            "if ! command -v atc >/dev/null; then",
            "  echo '[Error] atc is not on the PATH: source the set_env.sh of CANN first' >&2",
            "  exit 2",
            "fi",
            "",
            *atc_commands(plan),
            "",
        ]
    )


def aipp_config(side: int) -> str:
    """Return aipp.cfg: crop and normalisation inside the .om, for a network of `side` pixels.

    AIPP computes (pixel - mean_chn - min_chn) * var_reci_chn on 0..255. It keeps these numbers as
    float16, so the result differs from that of `lib.data.transforms` by up to 0.0012.
    """
    size, margin = uint8_size(side), crop_margin(side)
    lines = [
        f"# The .om's input becomes uint8, NHWC: N x {size} x {size} x 3, RGB.",
        "aipp_op {",
        "    aipp_mode: static",
        "    related_input_rank: 0",
        "    input_format: RGB888_U8",
        f"    src_image_size_w: {size}",
        f"    src_image_size_h: {size}",
        "    crop: true",
        f"    load_start_pos_w: {margin}",
        f"    load_start_pos_h: {margin}",
        f"    crop_size_w: {side}",
        f"    crop_size_h: {side}",
        "    csc_switch: false",
        "    rbuv_swap_switch: false",
    ]
    lines += [f"    mean_chn_{c}: 0" for c in range(3)]
    lines += [f"    min_chn_{c}: {255 * mean:.10g}" for c, mean in enumerate(IMAGENET_MEAN)]
    lines += [f"    var_reci_chn_{c}: {1 / (255 * std):.10f}" for c, std in enumerate(IMAGENET_STD)]
    return "\n".join([*lines, "}", ""])


def infer_script(plan: Conversion, repo: Path) -> str:
    """Return infer.sh: pictures to input files, ais_bench and the score, then pure speed."""
    side = plan.image.side
    kind = f"float32, {side} x {side}, NCHW"
    tool = f'imagenet_torch_preprocess.py" hrnet "$pictures" {_inputs_folder(plan)}'
    tool += _recipe_options(plan)
    if plan.aipp:
        kind = f"uint8, {uint8_size(side)} x {uint8_size(side)}, NHWC, since AIPP normalises"
        tool = (
            f'tools/ascend_convert.py" --onnx {plan.model} '
            f'--uint8_bins "$pictures" {_inputs_folder(plan)}'
        )
    lines = [
        "#!/usr/bin/env bash",
        "# Accuracy and speed of the .om files beside this script, by ais_bench on an Ascend NPU:",
        f"#   bash {INFER} PICTURES VAL_LABEL [DEVICE]",
        "# PICTURES: folder of pictures. VAL_LABEL: lines `<file> <class>`. DEVICE: 0 by default.",
        "set -euo pipefail",
        _UMASK,
        'if (($# < 2)); then sed -n "2,4s/^# //p" "${BASH_SOURCE[0]}" >&2; exit 2; fi',
        'pictures=$(realpath -- "$1") labels=$(realpath -- "$2") device=${3:-0}',
        "# Where this project is checked out, if not where it was when this script was written.",
        f"repo=${{HRNET_REPO:-{shlex.quote(str(repo))}}}",
        'cd -- "$(dirname -- "${BASH_SOURCE[0]}")"',
        "",
        f"# Input files: {kind}.",
        f'python3 "$repo/{tool}',
        "",
        *_before_ais_bench(_inputs_folder(plan)),
    ]
    for batch in plan.batches:
        lines += ["", f"# Batch {batch}: the accuracy, then the speed.", *_bench(plan, batch)]
    return "\n".join([*lines, ""])


def _recipe_options(plan: Conversion) -> str:
    """The options by which preprocessing follows the model's recipe; '' for the usual one."""
    side = plan.image.side
    recipe, usual = plan.recipe or Recipe.for_crop(side), Recipe.for_crop(side)
    words = ["--image_size", side] if side != _USUAL_SIDE else []
    for name in ("resize", "interpolation", "channels", "orientation", "mean", "std"):
        value = getattr(recipe, name)
        if value != getattr(usual, name):
            words += [f"--{name}", *(value if isinstance(value, tuple) else [value])]
    return "".join(f" {word}" for word in words)


def _before_ais_bench(inputs: str) -> list[str]:
    """Lines that warn of what ais_bench refuses or mixes up, and make its output folder."""
    return [
        "# ais_bench names a result by what stands before the first dot of its input's name.",
        f"names=$(find {inputs} -name '*.bin' -printf '%f\\n' 2>/dev/null || true)",
        'twice=$(cut -d. -f1 <<<"$names" | sort | uniq -d | wc -l)',
        "dotted=$(grep -c '[.].*[.]' <<<\"$names\" || true)",
        "if ((twice)); then",
        '  echo "[Warning] $twice results will be those of several pictures, whose names are equal '
        'up to the first dot: rename them" >&2',
        "elif ((dotted)); then",
        '  echo "[Warning] the score will miss $dotted pictures with dots in their names: rename '
        'them" >&2',
        "fi",
        "if [[ $PWD =~ [^A-Za-z0-9_/.-] ]]; then",
        '  echo "[Warning] ais_bench refuses paths with other characters than letters, digits and '
        '_ - . /, such as $PWD" >&2',
        "fi",
        "# It takes no output folder that others may read.",
        "mkdir -p result",
        "chmod 750 result",
    ]


def _inputs_folder(plan: Conversion) -> str:
    return "inputs_uint8" if plan.aipp else "inputs"


def _bench(plan: Conversion, batch: int) -> list[str]:
    size = f"--dymBatch {batch}" if plan.dynamic else f"--batchsize {batch}"
    bench = f'python3 -m ais_bench --model {plan.om_name(batch)}.om {size} --device "$device"'
    saving = f"--output result --output_dirname bs{batch} --outfmt TXT"
    return [
        f"{bench} --input {_inputs_folder(plan)} {saving}",
        f'python3 "$repo/imagenet_acc_eval.py" result/bs{batch} "$labels" result bs{batch}.json',
        f"{bench} --loop {_NUM_LOOPS}",
    ]


def write_scripts(plan: Conversion, repo: Path) -> Mapping[str, Path]:
    """Write the scripts into `plan.folder`; return {name: path} of those written."""
    texts = {ATC: atc_script(plan), INFER: infer_script(plan, repo)}
    if plan.aipp:
        texts[AIPP] = aipp_config(plan.image.side)
    plan.folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(text.encode(), plan.folder / name)
    return {name: plan.folder / name for name in texts}
