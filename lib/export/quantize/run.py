"""A whole run: a smaller model that gets its name only where it is sound and lost little."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from lib.data.picture_files import find_pictures
from lib.export.onnx_metadata import load_model
from lib.export.quantize.comparison import compare
from lib.export.quantize.convert import convert_fp16, quantize_int8
from lib.export.quantize.half import check_ranges, computes_in_float16
from lib.export.quantize.pictures import calibration_pictures, comparison_pictures, spread
from lib.runtime.cli import PartlyFailed
from lib.runtime.files import check_outputs, scratch_beside
from lib.runtime.signals import signals_as_exceptions
from lib.runtime.text import one_line

_NUM_RANGE_PICTURES = 8  # a model that overflows float16 does so on nearly any picture


@dataclass(frozen=True)
class ShrinkOptions:
    """What to make and how much it may cost. Raises ValueError for impossible values."""

    calibration: Path  # folder
    evaluate: Path | None = None  # folder to compare on; None: the calibration's
    num_calibration: int = 128
    max_drop: float = 1.0  # points
    keep_float: tuple[str, ...] = ()
    fp16: bool = False  # instead of int8

    def __post_init__(self) -> None:
        if not math.isfinite(self.max_drop):
            raise ValueError(
                f"--max_drop {self.max_drop}: a number of points is needed; 100 allows everything"
            )
        if self.num_calibration < 1:
            raise ValueError(f"--num_calibration {self.num_calibration}: 1 or more is needed")


def shrink(source: Path, target: Path, options: ShrinkOptions, say: Callable[[str], None]) -> None:
    """Write a smaller model of `source` as `target`; `say` gets the lines on what it costs.

    Raises:
        FileNotFoundError, ValueError: what the caller can mend, a bad picture among it.
        PartlyFailed: the model lost too much, is not valid, or would not work in float16. Like
            after every other exception nothing is written.
        Stopped, KeyboardInterrupt: the work was stopped.
    """
    if target.is_dir():
        raise ValueError(f"--output {target} is a folder: give the name of a file")
    with signals_as_exceptions() as check_stops:
        model = load_model(source)
        for folder in filter(None, dict.fromkeys((options.calibration, options.evaluate))):
            for line in find_pictures(folder).left_out.lines(folder):
                say(line)
        compared = comparison_pictures(options.evaluate or options.calibration, model)
        pictures = (*compared.pictures, *calibration_pictures(options.calibration))
        check_outputs({"--output": target}, (source, *(picture.path for picture in pictures)))
        if compared.remark:
            say(compared.remark)
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(target) as file:
            aside = Path(file.name)
            _write(source, aside, options)
            _check_onnx(aside, target)
            cost = compare(source, aside, compared.pictures)
            say(f"{source.stat().st_size / 1e6:.1f} MB -> {aside.stat().st_size / 1e6:.1f} MB")
            for line in cost.lines():
                say(line)
            if options.fp16 and not computes_in_float16():
                say(
                    "compared with float32 arithmetic on float16 weights: ONNX Runtime has no "
                    "float16 arithmetic on this processor"
                )
            if cost.drop > options.max_drop:
                raise PartlyFailed(_too_much(cost.drop, target, options))
            check_stops()
            os.replace(aside, target)


def _write(source: Path, aside: Path, options: ShrinkOptions) -> None:
    calibration = calibration_pictures(options.calibration)
    if options.fp16:
        check_ranges(source, spread(calibration, _NUM_RANGE_PICTURES))
        convert_fp16(source, aside)
        return
    chosen = spread(calibration, options.num_calibration)
    quantize_int8(source, aside, calibration=chosen, keep_float=options.keep_float)


def _check_onnx(aside: Path, target: Path) -> None:
    try:
        onnx.checker.check_model(str(aside), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = one_line(error)
        raise PartlyFailed(f"{target} is not written: ONNX's checker says: {reason}") from None


def _too_much(drop: float, target: Path, options: ShrinkOptions) -> str:
    fix = "calibrate with more pictures, or keep layers in float with --keep_float first classifier"
    said = f"{drop:.2f} points are lost where --max_drop {options.max_drop:g} is allowed"
    return f"{said}; {target} is not written" + ("" if options.fp16 else f": {fix}")
