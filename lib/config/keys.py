"""The keys of the configuration: each one's default, allowed values and meaning, in one row.

Defaults, checks, remarks on settings without effect and suggestions for unknown keys are made from
these rows. A key exists here only if some code reads it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from yacs.config import CfgNode

from lib.config.recipe import ORIENTATIONS
from lib.config.schedules import SCHEDULES

OFFICIAL_NAME = "cls_hrnet"  # MODEL.NAME of the official yaml files, whose network is MODEL.EXTRA
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
LEGACY_KEYS = frozenset(_LEGACY_KEYS.split())
MOST_EPOCHS, MAX_IMAGE_SIDE = 10**6, 4096
_ANY, _ANY_RATE, _ANY_SEED = 10**9, 1e38, 2**63 - 1  # without a natural bound; float32's end


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`; more is a slip, or memory that no machine has."""

    least: float
    most: float
    is_open_below: bool = False
    is_open_above: bool = False

    def __contains__(self, value: float) -> bool:
        is_above = self.least < value if self.is_open_below else self.least <= value
        return is_above and (value < self.most if self.is_open_above else value <= self.most)

    def __str__(self) -> str:
        opening, closing = "(" if self.is_open_below else "[", ")" if self.is_open_above else "]"
        most = self.most if isinstance(self.most, int) else f"{self.most:g}"
        return f"{opening}{self.least:g}, {most}{closing}"


PROBABILITY = Range(0, 1)


@dataclass(frozen=True)
class Condition:
    """What must hold of the other settings for a key to have an effect."""

    words: str
    holds: Callable[[CfgNode], bool]


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Args:
        name: with its block, such as TRAIN.LR.
        default: its type is the type of all values; a whole number does for a fraction too.
        meaning: in a few words, with the unit.
        allowed: the choices, or a range of numbers; None: any value, or what `check` says.
        read_if: None: always.
    """

    name: str
    default: object
    meaning: str
    allowed: tuple[object, ...] | Range | None = None
    read_if: Condition | None = None


_WITH_TEACHER = Condition("DISTILL.TEACHER names one", lambda c: bool(c.DISTILL.TEACHER))
_MIXED = Condition(
    "AUG.MIXUP or AUG.CUTMIX is above 0", lambda c: c.AUG.MIXUP > 0 or c.AUG.CUTMIX > 0
)
_MIXED_TWICE = Condition(
    "AUG.MIXUP and AUG.CUTMIX are both above 0", lambda c: c.AUG.MIXUP > 0 and c.AUG.CUTMIX > 0
)
_RANDAUGMENT = Condition("AUG.AUTO is randaugment", lambda c: c.AUG.AUTO == "randaugment")
_STEP = Condition("TRAIN.SCHEDULE is step", lambda c: c.TRAIN.SCHEDULE == "step")
_POLY = Condition("TRAIN.SCHEDULE is poly", lambda c: c.TRAIN.SCHEDULE == "poly")
_DECAYING = Condition("TRAIN.SCHEDULE is cosine or poly", lambda c: c.TRAIN.SCHEDULE != "step")
_WARMED_UP = Condition("TRAIN.WARMUP_EPOCHS is above 0", lambda c: c.TRAIN.WARMUP_EPOCHS > 0)
_SPLIT = Condition("DATASET.VAL_SHARE is above 0", lambda c: c.DATASET.VAL_SHARE > 0)

# fmt: off
KEYS = (
    Key("OUTPUT_DIR", "output", "run folder: OUTPUT_DIR/<DATASET.DATASET>/<name of the yaml>"),
    Key("WORKERS", -1, "data-loading processes a card; -1: cores / cards", Range(-1, 1024)),
    Key("PRINT_FREQ", 100, "steps between two console lines; the device is synchronised only then",
        Range(1, _ANY)),
    Key("SEED", 0, "of weights, order and augmentation", Range(0, _ANY_SEED)),
    Key("CUDNN.BENCHMARK", True, "let cuDNN pick the fastest convolutions for the shapes it sees"),
    Key("CUDNN.DETERMINISTIC", False, "let cuDNN compute the same to the bit each time"),
    Key("MODEL.NAME", "hrnet_w18",
        "a row of ARCHS in lib/models/hrnet.py, or cls_hrnet with EXTRA"),
    Key("MODEL.IMAGE_SIZE", [224, 224], "height and width in pixels: two equal multiples of 32"),
    Key("MODEL.NUM_CLASSES", 0, "0: as many as the data set has", Range(0, 10**6)),
    Key("MODEL.PRETRAINED", "", "weights to start from: a file, a name, or an http(s) address"),
    Key("MODEL.NEW_HEAD", False,
        "start a new classifier, unless the weights name the same classes"),
    Key("MODEL.EXTRA", {}, "STAGE1..4 as in the official yaml files"),
    Key("MODEL.FREEZE", [],
        "layers not trained: stem, layer1, stage2, stage3, stage4, or backbone"),
    Key("DATASET.DATASET", "imagenet", "names the run folder"),
    Key("DATASET.ROOT", "", "used where no data path is given on the command line"),
    Key("DATASET.TRAIN_SET", "train", "folder of the pictures to train on"),
    Key("DATASET.TEST_SET", "val", "folder of the pictures to validate with"),
    Key("DATASET.VAL_SHARE", 0.0,
        "of each class in TRAIN_SET, held out in place of TEST_SET; 0: none",
        Range(0, 1, is_open_above=True)),
    Key("DATASET.SPLIT_SEED", 0, "chooses the pictures that are held out",
        Range(0, _ANY_SEED), _SPLIT),
    Key("DATASET.BAD_IMAGES", "skip", "what a picture that cannot be decoded means",
        ("skip", "fail")),
    Key("DATASET.BAD_IMAGES_MAX_SHARE", 0.01, "of such pictures, above which a run ends",
        Range(0, 1)),
    Key("DATASET.DECODER", "auto", "of training pictures; auto: fast where it is installed",
        ("auto", "fast", "pillow")),
    Key("DATASET.ORIENTATION", "ignore",
        "of photos by their EXIF data: as torchvision, or turned upright", ORIENTATIONS),
    Key("AUG.CROP_SCALE", [0.08, 1.0], "share of the picture's area that a random crop covers"),
    Key("AUG.CROP_RATIO", [0.75, 1.3333333333333333], "width to height of a random crop"),
    Key("AUG.HFLIP", 0.5, "probability of a horizontal flip", PROBABILITY),
    Key("AUG.AUTO", "no", "augmentation by torchvision", ("no", "randaugment", "trivialaugment")),
    Key("AUG.RANDAUGMENT", [2, 9], "operations a picture, and their strength in 0..30",
        None, _RANDAUGMENT),
    Key("AUG.ERASE", 0.0, "probability that a rectangle is erased (with torchvision)", PROBABILITY),
    Key("AUG.MIXUP", 0.0, "alpha of the Beta distribution that shares are drawn from; 0: off",
        Range(0, 1000)),
    Key("AUG.CUTMIX", 0.0, "likewise", Range(0, 1000)),
    Key("AUG.MIX_PROB", 1.0, "share of the batches that are mixed", PROBABILITY, _MIXED),
    Key("AUG.MIX_SWITCH_PROB", 0.5, "probability of cutmix, where both are on",
        PROBABILITY, _MIXED_TWICE),
    Key("TRAIN.BATCH_SIZE_PER_GPU", 32, "pictures a step and card", Range(1, 2**16)),
    Key("TRAIN.END_EPOCH", 100, "epochs of the whole run", Range(1, MOST_EPOCHS)),
    Key("TRAIN.RESUME", False, "continue from the run folder's checkpoint where there is one"),
    Key("TRAIN.OPTIMIZER", "sgd", "the optimizer", ("sgd", "adam", "adamw", "rmsprop")),
    Key("TRAIN.LR", 0.05, "learning rate for one card; multiplied by the number of cards",
        Range(0, _ANY_RATE)),
    Key("TRAIN.SCHEDULE", "step", "how the rate changes, at every step",
        SCHEDULES),
    Key("TRAIN.LR_STEP", [30, 60, 90], "step: epochs at which the rate is multiplied by LR_FACTOR",
        None, _STEP),
    Key("TRAIN.LR_FACTOR", 0.1, "step: see LR_STEP", Range(0, 1000), _STEP),
    Key("TRAIN.LR_MIN", 0.0, "cosine, poly: the rate at the end, for one card",
        Range(0, _ANY_RATE), _DECAYING),
    Key("TRAIN.LR_POWER", 1.0, "poly: 1 is a straight line", Range(0, 1000), _POLY),
    Key("TRAIN.WARMUP_EPOCHS", 0.0,
        "in which the rate rises from WARMUP_FACTOR of it, at every step", Range(0, MOST_EPOCHS)),
    Key("TRAIN.WARMUP_FACTOR", 0.01, "see WARMUP_EPOCHS", Range(0, 1), _WARMED_UP),
    Key("TRAIN.HEAD_LR_FACTOR", 1.0, "the classifier's rate in relation to the rest's",
        Range(0, _ANY_RATE)),
    Key("TRAIN.LAYER_DECAY", 1.0,
        "rate of a layer group (stem, layer1, stage2..4) to that of the next",
        Range(0, 1, is_open_below=True)),
    Key("TRAIN.WD", 0.0001, "weight decay", Range(0, _ANY_RATE)),
    Key("TRAIN.WD_NORM_BIAS", True, "weight decay on norms and biases too"),
    Key("TRAIN.CLIP_GRAD_NORM", 0.0, "largest norm of all gradients together; 0: any",
        Range(0, _ANY_RATE)),
    Key("TRAIN.EMA_DECAY", 0.0, "of a moving average of the weights, such as 0.9999; 0: none",
        Range(0, 1, is_open_above=True)),
    Key("TRAIN.SYNC_BN", False, "batch norms over the images of all cards"),
    Key("TRAIN.EARLY_STOP", 0, "epochs without a better top-1 after which the run ends; 0: never",
        Range(0, MOST_EPOCHS)),
    Key("TRAIN.MOMENTUM", 0.9, "of sgd and rmsprop", Range(0, 1)),
    Key("TRAIN.NESTEROV", True, "of sgd"),
    Key("TRAIN.LOSS", "cross_entropy", "bce: mean over the classes, wants a higher rate in sgd",
        ("cross_entropy", "bce")),
    Key("TRAIN.LABEL_SMOOTHING", 0.0, "share of a label that is spread over all classes",
        Range(0, 1, is_open_above=True)),
    Key("TRAIN.CLASS_WEIGHTS", "no",
        "no, balanced, or a number a class, as '1, 2.5, 1' in their sorted order"),
    Key("TRAIN.PRECISION", "auto", "auto: fp16 on npu and cuda, fp32 on cpu",
        ("auto", "fp32", "hf32", "fp16", "bf16")),
    Key("TRAIN.AMP_BACKEND", "torch", "apex: Ascend's apex, O2, on npu", ("torch", "apex")),
    Key("TRAIN.ACCUM_STEPS", 1, "micro-batches in which a batch is computed, to need less memory",
        Range(1, 2**16)),
    Key("TRAIN.CHECKPOINT_ACTIVATIONS", False,
        "compute maps again for the gradients instead of keeping them"),
    Key("TRAIN.MEMORY_FORMAT", "auto", "auto: contiguous on npu only",
        ("auto", "channels_last", "contiguous")),
    Key("TRAIN.COMPILE", "no", "mode of torch.compile",
        ("no", "default", "reduce-overhead", "max-autotune")),
    Key("TRAIN.WIDTH_MULTIPLE", 1, "compute with widths rounded up to it by zeros", (1, 8, 16, 32)),
    Key("TRAIN.SAVE_EVERY_STEPS", 0, "also save inside an epoch; 0: at its end only",
        Range(0, _ANY)),
    Key("DISTILL.TEACHER", "",
        "weights (file, name, address) to learn from, beside the labels or alone"),
    Key("DISTILL.ARCH", "", "its network: a row of ARCHS, or timm/<name>; '': MODEL.NAME"),
    Key("DISTILL.LOSS", "js", "js: Jensen-Shannon, as SSLD", ("js", "kl"), _WITH_TEACHER),
    Key("DISTILL.TEMPERATURE", 1.0, "softens both distributions",
        Range(0, 1000, is_open_below=True), _WITH_TEACHER),
    Key("DISTILL.WEIGHT", 1.0, "share of this loss beside the labels' own; 1: labels are not used",
        Range(0, 1, is_open_below=True), _WITH_TEACHER),
    Key("TEST.BATCH_SIZE_PER_GPU", 32, "pictures a step and card", Range(1, 2**16)),
    Key("TEST.FOLD_BN", False, "valid.py evaluates with batch norms folded into the convolutions"),
    Key("TEST.FLIP", False,
        "evaluate with the mean of the logits of a picture and its mirror image"),
    Key("TEST.IMAGE_SIZE", 0, "side in pixels of what is evaluated; 0: MODEL.IMAGE_SIZE",
        Range(0, MAX_IMAGE_SIDE)),
    Key("TEST.RESIZE", 0,
        "short side in pixels before its crop; 0: in the proportion of training, 256 : 224",
        Range(0, 2 * MAX_IMAGE_SIDE)),
    Key("TEST.MODEL_FILE", "", "weights that valid.py evaluates: a file, a name, or an address"),
)
# fmt: on
CHOICES = {key.name: key.allowed for key in KEYS if isinstance(key.allowed, tuple)}


def default_config() -> CfgNode:
    """Return the defaults as a configuration of its own, not frozen."""
    tree: dict = {}
    for key in KEYS:
        *blocks, leaf = key.name.split(".")
        node = tree
        for block in blocks:
            node = node.setdefault(block, {})
        node[leaf] = copy.deepcopy(key.default)
    return CfgNode(tree)


def value_at(config: CfgNode, name: str) -> object:
    """Return the value of a key such as `TRAIN.LR`."""
    node: object = config
    for block in name.split("."):
        node = node[block]  # type: ignore[index]
    return node


def unused_settings(config: CfgNode) -> list[str]:
    """Return a remark for each condition that keeps settings from having an effect.

    Only for those that are not as by default. No error: yaml files share bases, which may hold what
    only some of them use.
    """
    unused: dict[Condition, list[str]] = {}
    for key in KEYS:
        value = value_at(config, key.name)
        if key.read_if and value != key.default and not key.read_if.holds(config):
            unused.setdefault(key.read_if, []).append(f"{key.name} {value}")
    return [f"{', '.join(names)}: no effect unless {c.words}" for c, names in unused.items()]
