"""The ONNX file against eager torch, int8 against float32, a whole run against computing alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lib.benchmark.rounds import Row, Work, compare, torch_threads
from lib.config.load import load_config
from lib.config.recipe import Recipe
from lib.export.onnx_metadata import load_model
from lib.export.options import ExportOptions
from lib.export.quantize.comparison import compare as compare_models
from lib.export.quantize.convert import MIN_OPSET, quantize_int8
from lib.export.quantize.pictures import Picture, comparison_pictures
from lib.export.run import export_onnx
from lib.models.build import build_model
from lib.models.resolver import resolve
from lib.offline.infer.openvino_session import computes_in_bf16
from lib.offline.infer.runner import InferRequest, Outcome, run_request
from lib.offline.infer.session import BACKENDS, open_session
from lib.offline.preprocess import PreprocessOptions, preprocess
from lib.runtime.environment import num_cores

GOAL_ONNX, GOAL_INT8, GOAL_WHOLE_RUN = 1.5, 2.5, 0.9
_BATCHES_A_ROUND = 4
_NUM_CLASSES = 1000
_UNIT = "images/s"
_DEFAULT = BACKENDS[0]
_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Models:
    """One network in three forms, for batches of one size."""

    arch: str
    network: nn.Module
    float32: Path
    int8: Path | None
    batch: int
    image_size: int
    is_trained: bool


def make_models(
    checkpoint: str | None,
    scratch: Path,
    *,
    cfg: Path | None = None,
    overrides: Sequence[str] = (),
    calibration: Sequence[Path],
    batch: int,
) -> Models:
    """Export and quantise the weights of `checkpoint`; None: random ones, which take as long.

    Without pictures for the `calibration` there is no int8 form.

    Raises what reading weights and exporting raise.
    """
    weights = checkpoint or scratch / "random.pth"
    if checkpoint is None:
        torch.manual_seed(0)
        torch.save(build_model(load_config(cfg, overrides), _NUM_CLASSES).state_dict(), weights)
    resolved = resolve(weights, cfg=cfg, overrides=overrides)
    network, _ = resolved.build()
    float32 = scratch / "float32.onnx"
    options = ExportOptions("atc", batch, opset=MIN_OPSET)
    export_onnx(weights, float32, options, cfg=cfg, overrides=overrides)
    int8 = scratch / "int8.onnx" if calibration else None
    if int8 is not None:
        quantize_int8(float32, int8, calibration=[Picture(path) for path in calibration])
    size = resolved.recipe.crop
    return Models(resolved.arch, network, float32, int8, batch, size, checkpoint is not None)


def measure_inference(models: Models, pictures: Path, rounds: int) -> list[Row]:
    """Compare computing alone; the cost of int8 is stated on the folder `pictures`, if trained."""
    remark = "random weights"
    assert models.int8 is not None, "made with pictures"
    if models.is_trained:
        compared = comparison_pictures(pictures, load_model(models.float32)).pictures
        cost = compare_models(models.float32, models.int8, compared)
        remark = f"same class for {cost.num_agreeing} of {cost.num_images} pictures"
        if cost.num_correct_before is not None:
            remark += f", right {cost.num_correct_before} before, {cost.num_correct_after} after"
    name = "torch, eager, channels_last"
    return [
        *measure_against(
            models,
            models.network,
            name,
            goals={"float32": GOAL_ONNX},
            backends=[_DEFAULT],
            rounds=rounds,
        ),
        compare(
            "infer",
            f"int8, batch {models.batch}",
            ours=_served(models.int8, models, _DEFAULT),
            peer=_served(models.float32, models, _DEFAULT),
            num_items=_BATCHES_A_ROUND * models.batch,
            unit=_UNIT,
            rounds=rounds,
            goal=GOAL_INT8,
            peer_name="ONNX Runtime, float32",
            remark=remark,
        ),
    ]


def measure_against(
    models: Models,
    network: nn.Module,
    name: str,
    *,
    goals: Mapping[str, float],
    backends: Sequence[str],
    rounds: int,
) -> list[Row]:
    """Compare the forms named in `goals` (float32, int8) with a torch network of this size.

    Each form is served by each of the `backends` of tools/onnx_infer.py in turn; where processor
    and backend can, float32 is also computed in bfloat16, without a goal.
    """
    network = network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = torch.from_numpy(_images(models)).to(memory_format=torch.channels_last)

    def eager() -> None:
        with torch.inference_mode(), torch_threads(num_cores()):
            for _ in range(_BATCHES_A_ROUND):
                network(batch)

    forms = {"float32": models.float32, "int8": models.int8}
    ways = [
        (form, path, backend, "fp32")
        for form, path in forms.items()
        for backend in backends
        if form in goals and path
    ]
    if "float32" in goals and "openvino" in backends and computes_in_bf16():
        ways.append(("float32 computed in bfloat16", models.float32, "openvino", "bf16"))
    return [
        compare(
            "infer",
            f"{models.arch}, {_NAMES[backend]}, {form}, batch {models.batch}",
            ours=_served(path, models, backend, precision),
            peer=eager,
            num_items=_BATCHES_A_ROUND * models.batch,
            unit=_UNIT,
            rounds=rounds,
            goal=goals.get(form),
            peer_name=name,
        )
        for form, path, backend, precision in ways
    ]


def _served(path: Path, models: Models, backend: str, precision: str = "fp32") -> Work:
    """What computes a round of batches with one form of the network."""
    session = open_session(
        path,
        backend=backend,
        dynamic_batch=0,
        device=0,
        num_threads=num_cores(),
        precision=precision,
    )
    images = _images(models)

    def work() -> None:
        for _ in range(_BATCHES_A_ROUND):
            session.run([images])

    return work


def _images(models: Models) -> npt.NDArray[np.float32]:
    shape = (models.batch, 3, models.image_size, models.image_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def measure_whole_run(
    models: Models, pictures: Path, scratch: Path, *, num_batches: int, rounds: int
) -> Row:
    """Compare a run of tools/onnx_infer.py over .bin files, results written, with a pure one."""
    bins = scratch / "bins"
    preprocess(pictures, bins, PreprocessOptions(Recipe.for_crop(models.image_size)))
    files = sorted(bins.glob("*.bin"))
    num_items = num_batches * models.batch
    many = scratch / "many"
    many.mkdir()
    for number in range(num_items):  # real files: reading them is what is measured
        (many / f"{number}.bin").write_bytes(files[number % len(files)].read_bytes())
    seconds: dict[str, list[float]] = {"whole": [], "pure": []}

    def run(kind: str, request: InferRequest) -> None:
        outcome = run_request(request, lambda line: None, lambda: None)
        seconds[kind].append(_seconds(kind, outcome, num_items))

    whole = InferRequest(models.float32, input=str(many), output=scratch / "results", outfmt="TXT")
    pure = InferRequest(models.float32, loop=num_batches)
    for _ in range(rounds + 1):
        run("whole", whole)
        run("pure", pure)
    whole_s, pure_s = (np.array(seconds[kind][1:]) for kind in ("whole", "pure"))
    return Row(
        "infer",
        f"reading, computing and writing, batch {models.batch}",
        num_items / float(np.median(whole_s)),
        num_items / float(np.median(pure_s)),
        float(np.median(pure_s / whole_s)),
        _UNIT,
        GOAL_WHOLE_RUN,
        "computing alone",
        f"{num_items} .bin files to TXT",
    )


def _seconds(kind: str, outcome: Outcome, num_items: int) -> float:
    """Return the time of the whole run without loading, or of computing alone."""
    if kind == "whole":
        return outcome.end_s - outcome.start_s
    return num_items / outcome.images_per_s
