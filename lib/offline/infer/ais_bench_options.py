"""ais_bench's options that `tools/onnx_infer.py` takes, so that its command lines run here too."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from lib.offline.infer.model import Shapes
from lib.runtime.cli import ArgumentParser

YES, NO = ("1", "true", "yes", "t", "y"), ("0", "false", "no", "f", "n")
_SHAPE = re.compile(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*")
_MAX_DIMS = 7


def switch(text: str) -> bool:
    """Return what a word for yes or no means. Raises argparse.ArgumentTypeError."""
    if text.lower() not in YES + NO:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(YES + NO)}")
    return text.lower() in YES


def shapes(text: str) -> Shapes:
    """Return `image:16,3,224,224;other:16,5` by name. Raises argparse.ArgumentTypeError."""
    found = {}
    for part in text.split(";"):
        name, _, sizes = part.rpartition(":")
        is_shape = _SHAPE.fullmatch(sizes) and sizes.count(",") < _MAX_DIMS
        if not is_shape or not name or name in found:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not of the form NAME:N,C,H,W, once for each input, such as "
                "image:16,3,224,224"
            )
        found[name] = tuple(map(int, sizes.split(",")))
    return found


def height_and_width(text: str) -> Shapes:
    """Return `224,224` as the shape of pictures. Raises argparse.ArgumentTypeError."""
    if not _SHAPE.fullmatch(text) or text.count(",") != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form H,W, such as 224,224")
    height, width = map(int, text.split(","))
    return {"": (height, width)}


def whole(text: str) -> int:
    """Return a number of up to nine digits. Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number >= 0")
    return int(text)


# What they ask for is done by an NPU's driver, or in another way here; divide_input is always on.
_SWITCHES = (
    "debug", "profiler", "profiler_rename", "dump", "dump_npy", "pipeline", "energy_consumption",
    "perf", "divide_input", "auto_set_dymshape_mode", "auto_set_dymdims_mode",
)  # fmt: skip
_TEXTS = ("npu_id", "acl_json_path", "aipp_config", "outputSize")
_WITHOUT_MEANING: Mapping[str, Callable[[str], object]] = MappingProxyType(
    {**dict.fromkeys(_SWITCHES, switch), **dict.fromkeys(_TEXTS, str), "threads": whole}
)
_RUN_MODES = ("array", "files", "tensor", "full")


class _Left(argparse.Action):
    """Notes an option as given, with its value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        given = "" if values is self.const else f" {str(values).lower()}"
        namespace.left = (*getattr(namespace, "left", ()), f"{option_string}{given}")


def add_ais_bench_options(parser: ArgumentParser) -> None:
    """Add them; those that change nothing are gathered as texts in `left` of the namespace."""
    group = parser.add_argument_group("options of ais_bench")
    parser.set_defaults(left=())
    what = "shape of each input, such as image:16,3,224,224, which gives the batch"
    group.add_argument("--dymShape", type=shapes, help=what)
    group.add_argument("--dymDims", type=shapes, help="the same")
    group.add_argument("--dymHW", type=height_and_width, help="height,width: the model's own")
    what = "changes nothing here"
    group.add_argument("--run_mode", action=_Left, choices=_RUN_MODES, help=what)
    for name, kind in _WITHOUT_MEANING.items():
        group.add_argument(f"--{name}", action=_Left, type=kind, nargs="?", const=True, help=what)


def asked_shapes(args: argparse.Namespace) -> Shapes:
    """Return the shapes that --dymShape, --dymDims and --dymHW ask for, together."""
    found: dict[str, tuple[int, ...]] = {}
    for option in ("dymShape", "dymDims", "dymHW"):
        found.update(getattr(args, option) or {})
    return found


def asked_batch(args: argparse.Namespace) -> int:
    """Return the batch that --dymBatch, or else a shape, gives; 0: none does.

    Raises ValueError where they differ.
    """
    batches = {shape[0] for name, shape in asked_shapes(args).items() if name}
    batches |= {args.dymBatch} - {0}
    if len(batches) > 1:
        raise ValueError(
            "--dymBatch, --dymShape and --dymDims give several batches: "
            f"{', '.join(map(str, sorted(batches)))}"
        )
    return batches.pop() if batches else 0
