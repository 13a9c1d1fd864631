"""A whole export: weights in, a checked ONNX file and its receipt out."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import nn

from lib.config.recipe import Recipe
from lib.export.graph import broken_promises, describe, signature
from lib.export.onnx_metadata import opset_of
from lib.export.options import ExportOptions
from lib.export.verify import TOLERANCE, Check, Pictures, read_pictures, verify_onnx
from lib.export.write import check_available, write_graph
from lib.models.resolver import Resolved, resolve
from lib.models.weights.load import WeightFile
from lib.runtime.cli import PartlyFailed
from lib.runtime.files import scratch_beside, sha256_of, write_json
from lib.runtime.signals import signals_as_exceptions

SUFFIX = ".onnx"


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compared."""

    onnx: Path
    receipt: Path
    loaded: str  # one line on the weights
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class _Source:
    """The network to export, and what is known of it."""

    network: nn.Module
    arch: str
    file: WeightFile
    sha256: str
    recipe: Recipe
    loaded: str


def export_onnx(
    checkpoint: Path | str,
    output: Path,
    options: ExportOptions | None = None,
    *,
    cfg: Path | None = None,
    overrides: Sequence[str] = (),
    verify_images: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> ExportReport:
    """Write the weights `checkpoint` as the ONNX file `output`, with a receipt beside it.

    `cfg` and `overrides` are the resolver's; `say` gets the lines on what belongs to the weights.

    The file gets its name only after ONNX's checker and the comparison with the network; else it
    is kept as `<name>.failed.onnx` and PartlyFailed is raised. An earlier `output` is then left.
    Raises ValueError and FileNotFoundError for what the caller can mend, Stopped upon SIGTERM.
    """
    options = options or ExportOptions()
    _check_name(output)
    check_available(options)
    with signals_as_exceptions() as check_stops:
        resolved = resolve(checkpoint, cfg=cfg, overrides=overrides)
        for line in resolved.lines:
            say(line)
        source = _read(resolved)
        pictures = None if verify_images is None else read_pictures(verify_images, source.recipe)
        output.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(output, suffix=SUFFIX) as file:
            scratch = Path(file.name)
            _write(source, scratch, options)
            faults, checks = _judge(scratch, source, options, pictures)
            receipt = _receipt(scratch, source, options, checks)
            target = output.with_suffix(f".failed{SUFFIX}") if faults else output
            check_stops()
            os.replace(scratch, target)
    receipt_path = target.with_suffix(".receipt.json")
    write_json(receipt, receipt_path)
    if faults:
        raise PartlyFailed(f"{output} is not written: {'; '.join(faults)}; see {target}")
    return ExportReport(output, receipt_path, source.loaded, tuple(checks))


def _check_name(output: Path) -> None:
    if output.suffix != SUFFIX:
        raise ValueError(f"--output {output}: a name that ends in {SUFFIX} is needed")
    if output.is_dir():
        raise ValueError(f"--output {output} is a folder: give the name of a file")


def _read(resolved: Resolved) -> _Source:
    if resolved.config.TEST.FLIP:
        raise ValueError(
            "TEST.FLIP evaluates with mirror images, and an ONNX file computes each picture once: "
            "say TEST.FLIP false, and compare with an evaluation that says so too"
        )
    network, loaded = resolved.build()
    digest = sha256_of(resolved.file.path)
    return _Source(network, resolved.arch, resolved.file, digest, resolved.recipe, loaded)


def _write(source: _Source, path: Path, options: ExportOptions) -> None:
    model = write_graph(source.network, path, options, image_size=source.recipe.crop)
    names = source.file.class_names
    describe(
        model,
        options,
        recipe=source.recipe,
        class_names=names if names and len(names) == source.file.num_classes else None,
        arch=source.arch,
        checkpoint_sha256=source.sha256,
    )
    onnx.save(model, str(path))


def _judge(
    path: Path, source: _Source, options: ExportOptions, pictures: Pictures | None
) -> tuple[list[str], list[Check]]:
    """Return why the file at `path` must not be kept, and the comparison with the network."""
    size = source.recipe.crop
    faults = broken_promises(path, options, image_size=size, num_classes=source.file.num_classes)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        faults.append(f"ONNX's checker says: {' '.join(str(error).split())[:300]}")
    if faults:  # it may not even run
        return faults, []
    checks = verify_onnx(path, source.network, options, image_size=size, pictures=pictures)
    return [f"{check}, above {TOLERANCE:g}" for check in checks if not check.passed], checks


def _receipt(
    path: Path, source: _Source, options: ExportOptions, checks: Sequence[Check]
) -> dict[str, object]:
    model = onnx.load(str(path), load_external_data=False)
    return {
        "onnx_sha256": sha256_of(path),
        "checkpoint_sha256": source.sha256,
        "arch": source.arch,
        "recipe": source.recipe.as_json(),
        "profile": options.profile,
        "opset": opset_of(model),
        "ir_version": model.ir_version,
        "input_shape": signature(model.graph.input)[0][1],
        "output_shape": signature(model.graph.output)[0][1],
        "versions": {
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        },
        "checks": [check.as_json() for check in checks],
        "tolerance": TOLERANCE,
    }
