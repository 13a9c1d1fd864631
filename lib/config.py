"""The configuration: yacs defaults, yaml files with `_BASE_`, and KEY VALUE overrides.

A key exists here only if some code reads it. `load_config` gives a fresh, frozen CfgNode each
call, so that two runs in one process never see each other's settings.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode

_DEFAULTS = """
OUTPUT_DIR: output         # run folder: OUTPUT_DIR/<DATASET.DATASET>/<name of the yaml>
WORKERS: -1                # data-loading processes a card; -1: cores / cards
PRINT_FREQ: 100            # steps between two console lines; the device is synchronised only then
SEED: 0
CUDNN:
  BENCHMARK: true          # let cuDNN pick the fastest convolutions for the shapes it sees
  DETERMINISTIC: false
MODEL:
  NAME: hrnet_w18          # a row of ARCHS in lib/models/hrnet.py, or cls_hrnet with EXTRA
  IMAGE_SIZE: [224, 224]
  NUM_CLASSES: 0           # 0: as many as the data set has
  PRETRAINED: ''           # weights to start from
  EXTRA: {}                # STAGE1..4 as in the official yaml files
DATASET:
  DATASET: imagenet        # names the run folder
  ROOT: ''                 # used where no data path is given on the command line
  TRAIN_SET: train
  TEST_SET: val
  BAD_IMAGES: skip         # skip | fail: what a picture that cannot be decoded means
  BAD_IMAGES_MAX_SHARE: 0.01
  DECODER: auto            # of training pictures: fast | pillow; auto: fast where it is installed
AUG:
  CROP_SCALE: [0.08, 1.0]  # share of the picture's area that a random crop covers
  CROP_RATIO: [0.75, 1.3333333333333333]
  HFLIP: 0.5               # probability of a horizontal flip
TRAIN:
  BATCH_SIZE_PER_GPU: 32
  END_EPOCH: 100
  RESUME: false            # continue from the run folder's checkpoint where there is one
  OPTIMIZER: sgd           # sgd | adam | adamw | rmsprop
  LR: 0.05                 # for one card; multiplied by the number of cards
  LR_STEP: [30, 60, 90]    # epochs at which the rate is multiplied by LR_FACTOR
  LR_FACTOR: 0.1
  WD: 0.0001
  MOMENTUM: 0.9
  NESTEROV: true
  PRECISION: auto          # auto (fp16 on npu and cuda, fp32 on cpu) | fp32 | hf32 | fp16 | bf16
  AMP_BACKEND: torch       # torch | apex (Ascend's apex, O2, on npu)
  ACCUM_STEPS: 1           # parts in which a batch is computed, to need less memory
  CHECKPOINT_ACTIVATIONS: false  # compute maps again for the gradients instead of keeping them
  COMPILE: 'no'            # torch.compile: no | default | reduce-overhead | max-autotune
  SAVE_EVERY_STEPS: 0      # also save inside an epoch; 0: at its end only
TEST:
  BATCH_SIZE_PER_GPU: 32
  FOLD_BN: false           # valid.py evaluates with batch norms folded into the convolutions
  MODEL_FILE: ''           # weights that valid.py evaluates
"""

# Keys of the official HRNet and Ascend yaml files that mean nothing here.
_LEGACY_KEYS = """
GPUS LOG_DIR DATA_DIR AUTO_RESUME PIN_MEMORY RANK CUDNN.ENABLED LOSS DEBUG
MODEL.INIT_WEIGHTS MODEL.NUM_JOINTS MODEL.TAG_PER_JOINT MODEL.TARGET_TYPE MODEL.HEATMAP_SIZE
MODEL.SIGMA DATASET.DATA_FORMAT DATASET.HYBRID_JOINTS_TYPE DATASET.SELECT_DATA DATASET.FLIP
DATASET.SCALE_FACTOR DATASET.ROT_FACTOR DATASET.PROB_HALF_BODY DATASET.NUM_JOINTS_HALF_BODY
DATASET.COLOR_RGB TRAIN.GAMMA1 TRAIN.GAMMA2 TRAIN.BEGIN_EPOCH TRAIN.CHECKPOINT TRAIN.SHUFFLE
TEST.FLIP_TEST TEST.POST_PROCESS TEST.SHIFT_HEATMAP TEST.USE_GT_BBOX TEST.IMAGE_THRE
TEST.NMS_THRE TEST.SOFT_NMS TEST.OKS_THRE TEST.IN_VIS_THRE TEST.COCO_BBOX_FILE TEST.BBOX_THRE
"""
OFFICIAL_NAME = "cls_hrnet"  # MODEL.NAME of the official yaml files, whose network is MODEL.EXTRA
_CHOICES = {
    "DATASET.BAD_IMAGES": ("skip", "fail"),
    "DATASET.DECODER": ("auto", "fast", "pillow"),
    "TRAIN.OPTIMIZER": ("sgd", "adam", "adamw", "rmsprop"),
    "TRAIN.PRECISION": ("auto", "fp32", "hf32", "fp16", "bf16"),
    "TRAIN.AMP_BACKEND": ("torch", "apex"),
    "TRAIN.COMPILE": ("no", "default", "reduce-overhead", "max-autotune"),
}
_MINIMUM = {
    "WORKERS": -1,
    "PRINT_FREQ": 1,
    "SEED": 0,
    "MODEL.NUM_CLASSES": 0,
    "TRAIN.BATCH_SIZE_PER_GPU": 1,
    "TRAIN.END_EPOCH": 1,
    "TRAIN.LR": 0.0,
    "TRAIN.LR_FACTOR": 0.0,
    "TRAIN.WD": 0.0,
    "TRAIN.MOMENTUM": 0.0,
    "TRAIN.ACCUM_STEPS": 1,
    "TRAIN.SAVE_EVERY_STEPS": 0,
    "TEST.BATCH_SIZE_PER_GPU": 1,
    "DATASET.BAD_IMAGES_MAX_SHARE": 0.0,
}


def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """Return a frozen configuration: defaults, then the yaml file and its bases, then overrides.

    `overrides` alternates keys and values, `["TRAIN.LR", "0.1"]`; values are read as yaml, those
    of keys that hold a text are taken as they stand.
    Raises ValueError (unknown key, wrong type or value, odd overrides, broken yaml) and
    FileNotFoundError (no such yaml), each in one line.
    """
    defaults = CfgNode(yaml.safe_load(_DEFAULTS))
    config = defaults.clone()
    ignored: list[str] = []
    if path is not None:
        for layer_path, layer in _layers(Path(path), seen=()):
            ignored += _drop_official_resume(layer)
            ignored += _merge(config, layer, defaults=defaults, source=str(layer_path))
    overriding = _tree_of(overrides, defaults)
    ignored += _merge(config, overriding, defaults=defaults, source="command line")
    if ignored:
        names = ", ".join(dict.fromkeys(ignored))
        warnings.warn(
            f"{path or 'command line'}: keys without meaning here are ignored: {names}",
            stacklevel=2,
        )
    _check(config)
    config.freeze()
    return config


def _layers(path: Path, seen: tuple[Path, ...]) -> Iterator[tuple[Path, dict[str, object]]]:
    """Yield (path, mapping) of the yaml file, its `_BASE_` first."""
    if path.resolve() in seen:
        raise ValueError(f"{path}: _BASE_ leads back to this file")
    if not path.is_file():
        raise FileNotFoundError(f"no such experiment file: {path}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not readable yaml: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a mapping of keys is needed, not a {type(tree).__name__}")
    base = tree.pop("_BASE_", None)
    if base is not None:
        if not isinstance(base, str):
            raise ValueError(f"{path}: _BASE_ must be the path of one yaml file, not {base!r}")
        yield from _layers(path.parent / base, (*seen, path.resolve()))
    yield path, tree


def _drop_official_resume(tree: dict[str, object]) -> list[str]:
    """Drop RESUME: true from an official-form yaml; return what to say about it.

    Eight of the nine official files say so, and a second run silently continued the first. Here
    continuing is asked for by name.
    """
    model, train = tree.get("MODEL"), tree.get("TRAIN")
    is_official = isinstance(model, dict) and model.get("NAME") == OFFICIAL_NAME
    if is_official and isinstance(train, dict) and train.pop("RESUME", False):
        return ["TRAIN.RESUME (ask for it with --auto_resume)"]
    return []


def _tree_of(overrides: Sequence[str], defaults: CfgNode) -> dict[str, object]:
    if len(overrides) % 2:
        raise ValueError(f"overrides come in pairs KEY VALUE; {overrides[-1]!r} has no partner")
    tree: dict[str, object] = {}
    for key, text in zip(overrides[::2], overrides[1::2], strict=True):
        *parents, leaf = key.split(".")
        node = tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ValueError(f"override {key}: {parent} was given a value before")
            node = child
        try:
            node[leaf] = text if _is_text(defaults, key) else yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"override {key}: {text!r} is not a yaml value") from None
    return tree


def _is_text(defaults: CfgNode, path: str) -> bool:
    # The path of a file may hold what yaml gives a meaning to: ` #`, `: `, brackets, digits alone.
    node: object = defaults
    for part in path.split("."):
        node = node.get(part) if isinstance(node, CfgNode) else None
    return isinstance(node, str)


def _merge(
    config: CfgNode,
    tree: Mapping[str, object],
    *,
    defaults: CfgNode,
    source: str,
    prefix: str = "",
) -> list[str]:
    """Merge `tree` into `config` in place; return the legacy keys that were left out."""
    ignored = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if path in _LEGACY_KEYS.split():
            ignored.append(path)
        elif key not in config:
            raise ValueError(f"{source}: unknown key {path}{_suggestion(path)}")
        elif isinstance(config[key], CfgNode):
            branch = {} if value is None else value
            if not isinstance(branch, Mapping):
                raise ValueError(f"{source}: {path} holds keys of its own, not the value {value!r}")
            if path == "MODEL.EXTRA":
                config[key] = _free_form(branch, where=f"{source}: {path}")
            else:
                ignored += _merge(
                    config[key], branch, defaults=defaults[key], source=source, prefix=f"{path}."
                )
        else:
            config[key] = _coerced(value, defaults[key], where=f"{source}: {path}")
    return ignored


def _free_form(tree: Mapping[str, object], *, where: str) -> CfgNode:
    try:
        return CfgNode(dict(tree), new_allowed=True)
    except AssertionError as error:  # how yacs refuses a value, such as a date
        raise ValueError(f"{where}: {error}") from None


def _suggestion(path: str) -> str:
    known = list(_leaf_paths(yaml.safe_load(_DEFAULTS)))
    # A key on the wrong level (LR for TRAIN.LR) is the commonest slip, so compare last names too.
    same_leaf = [name for name in known if name.split(".")[-1] == path.split(".")[-1].upper()]
    nearest = same_leaf or difflib.get_close_matches(path.upper(), known, n=1, cutoff=0.4)
    return f"; did you mean {nearest[0]}?" if nearest else f"; known keys: {', '.join(known)}"


def _leaf_paths(tree: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaf_paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _coerced(value: object, default: object, *, where: str) -> object:
    """Return `value` with the default's type: whole numbers are rates too, and so is '1e-4'."""
    wanted = type(default)
    if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if wanted is str and value is None:
        return ""
    if isinstance(default, list) and isinstance(value, (list, tuple)):
        return [_coerced(item, default[0], where=where) for item in value]
    if isinstance(default, list) and type(value) is type(default[0]):
        return [value]
    if type(value) is not wanted:
        raise ValueError(
            f"{where}: {value!r} is a {type(value).__name__}, {wanted.__name__} is needed"
        )
    return value


def value_at(config: CfgNode, path: str) -> object:
    """Return the value of a dotted key such as `TRAIN.LR`."""
    node: object = config
    for part in path.split("."):
        node = node[part]  # type: ignore[index]
    return node


def _check(config: CfgNode) -> None:
    for path, allowed in _CHOICES.items():
        if value_at(config, path) not in allowed:
            raise ValueError(
                f"{path}: {value_at(config, path)!r} is not one of {', '.join(allowed)}"
            )
    for path, minimum in _MINIMUM.items():
        if not value_at(config, path) >= minimum:  # type: ignore[operator]
            raise ValueError(f"{path}: {value_at(config, path)!r} is below {minimum}")
    size = config.MODEL.IMAGE_SIZE
    if len(size) != 2 or size[0] != size[1] or size[0] % 32 or size[0] < 32:
        raise ValueError(
            f"MODEL.IMAGE_SIZE: {list(size)} must be two equal multiples of 32, such as [224, 224]"
        )
    low, high = config.AUG.CROP_SCALE if len(config.AUG.CROP_SCALE) == 2 else (0, 0)
    if not 0 < low <= high <= 1:
        raise ValueError(
            f"AUG.CROP_SCALE: {config.AUG.CROP_SCALE} must be [low, high] within (0, 1]"
        )
    low, high = config.AUG.CROP_RATIO if len(config.AUG.CROP_RATIO) == 2 else (0, 0)
    if not 0 < low <= high:
        raise ValueError(f"AUG.CROP_RATIO: {config.AUG.CROP_RATIO} must be [low, high] above 0")
    if not 0 <= config.AUG.HFLIP <= 1:
        raise ValueError(f"AUG.HFLIP: {config.AUG.HFLIP} must be a probability within [0, 1]")
    if config.TRAIN.ACCUM_STEPS > config.TRAIN.BATCH_SIZE_PER_GPU:
        raise ValueError(
            f"TRAIN.ACCUM_STEPS: {config.TRAIN.ACCUM_STEPS} parts are more than the "
            f"{config.TRAIN.BATCH_SIZE_PER_GPU} images of TRAIN.BATCH_SIZE_PER_GPU"
        )
    steps = config.TRAIN.LR_STEP
    if any(step < 1 for step in steps) or sorted(set(steps)) != list(steps):
        raise ValueError(f"TRAIN.LR_STEP: {steps} must be rising epochs >= 1, such as [30, 60, 90]")


def default_run_folder(config: CfgNode, config_path: Path | None) -> Path:
    """Return OUTPUT_DIR/<DATASET.DATASET>/<yaml's name>, relative to the working directory."""
    name = config_path.name.removesuffix(".yaml") if config_path else config.MODEL.NAME
    return Path(config.OUTPUT_DIR) / config.DATASET.DATASET / name
