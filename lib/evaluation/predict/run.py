"""One run over pictures: decode, compute, tell, write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lib.data.build import build_eval_loader, input_lines
from lib.data.image_list import ImageList
from lib.data.loading import Batch
from lib.evaluation.forward import ForwardPass, build_forward_pass
from lib.evaluation.predict import cam, writing
from lib.evaluation.predict.inputs import expand
from lib.evaluation.predict.network import class_names
from lib.evaluation.predict.sheet import Sheet
from lib.evaluation.predict.writing import NOT_FINITE, Guess, Row
from lib.models.build import place, wrap_for_eval
from lib.models.resolver import resolve
from lib.runtime import device as devices
from lib.runtime import run_folder
from lib.runtime.cli import PartlyFailed
from lib.runtime.console import Console
from lib.runtime.distributed import Processes
from lib.runtime.files import check_outputs
from lib.runtime.signals import deferred_signals
from lib.runtime.text import counted, shorten


@dataclass(frozen=True)
class PredictRequest:
    """What the command line asks for. Raises ValueError for what does not go together."""

    pictures: tuple[str, ...]  # files, folders, patterns
    checkpoint: Path | str  # a file, a name of published weights, or their address
    cfg: Path | None = None
    overrides: tuple[str, ...] = ()  # of the configuration
    topk: int = 5
    out: Path | None = None  # csv or json
    show: Path | None = None  # contact sheet
    with_cam: bool = False
    cam_layer: str = cam.FINAL  # one of cam.LAYERS

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"--topk {self.topk}: 1 or more is needed")
        writing.check_ending(self.out)
        if self.show is not None and self.show.suffix.lower() != ".png":
            raise ValueError(f"--show {self.show}: its ending must be .png")
        if self.with_cam and self.show is None:
            raise ValueError("--cam needs --show, the picture to draw the activation maps in")
        if self.cam_layer != cam.FINAL and not self.with_cam:
            raise ValueError(f"--cam_layer {self.cam_layer} needs --cam, whose layer it chooses")


def predict_pictures(request: PredictRequest, processes: Processes) -> None:
    """Print a line a picture and write what is asked for.

    Raises ValueError and FileNotFoundError for what does not fit; PartlyFailed where pictures
    cannot be read or get no finite outputs, all others being done; KeyboardInterrupt and Stopped
    between two batches.
    """
    if request.with_cam:
        cam.check_installed()
    paths, left_out_lines = expand(request.pictures)
    read = (*paths, *run_folder.read_with(request.checkpoint), request.cfg)
    check_outputs({"--out": request.out, "--show": request.show}, read)
    resolved = resolve(request.checkpoint, cfg=request.cfg, overrides=request.overrides)
    config = resolved.config
    network, loaded = resolved.build()
    names, names_remark = class_names(resolved)
    forward_pass = build_forward_pass(config, processes, recipe=resolved.recipe)
    place(network, processes.device, config.TRAIN.MEMORY_FORMAT)
    console = Console(enabled=True)
    for said in (*resolved.lines, *names_remark, *input_lines(config), *left_out_lines):
        console.say(said)
    console.say(
        f"loaded {loaded}; device {devices.describe(processes.device)}, precision "
        f"{forward_pass.precision.describe()}; {counted(len(paths), 'picture')}"
    )
    images = ImageList(paths, (0,) * len(paths), names)
    topk = min(request.topk, len(names))
    recipe = resolved.recipe
    sheet = Sheet(recipe) if request.show else None
    coarse = cam.coarseness_remark(recipe.crop, request.cam_layer) if request.with_cam else ""
    if coarse:
        console.say(f"[Warning] {coarse}")
    work = _Work(wrap_for_eval(config, network), forward_pass, images, topk=topk, sheet=sheet)
    failed: list[Row] = []
    loader = build_eval_loader(config, images, processes, recipe)
    width = writing.path_width(paths)
    with deferred_signals() as check, writing.open_writer(request.out, topk) as writer:
        console.start_bar("prediction", len(loader))
        for batch in loader:
            rows = work.rows(batch)
            for row in rows:
                console.say(writing.line(row, width))
            writer.write(rows)
            failed += [row for row in rows if row.error]
            console.advance_bar()
            check()
        console.end_bar()
        if request.show is not None and sheet is not None:
            layer = request.cam_layer if request.with_cam else None
            remark = sheet.save(
                request.show, network, forward_pass, num_all=len(paths), layer=layer
            )
            if remark:
                console.say(f"[Warning] {remark}")
    _finish(console, request, failed, num_pictures=len(paths))


def _finish(
    console: Console, request: PredictRequest, failed: Sequence[Row], *, num_pictures: int
) -> None:
    """Say what was written; raise PartlyFailed where pictures are left without a class."""
    for path in filter(None, (request.out, request.show)):
        console.say(f"written: {path}")
    if failed:
        raise PartlyFailed(_account(failed, num_pictures))


def _account(failed: Sequence[Row], num_pictures: int) -> str:
    """Return what became of the pictures without a class."""
    unread = [row.path for row in failed if row.error != NOT_FINITE]
    others = [row.path for row in failed if row.error == NOT_FINITE]
    parts = (("cannot be read", unread), (f"have no class, since {NOT_FINITE}", others))
    return "; ".join(
        f"{len(names)} of {num_pictures} pictures {what}: {shorten(names)}"
        for what, names in parts
        if names
    )


@dataclass
class _Work:
    view: nn.Module  # the network, or with TEST.FLIP its mirrored mean
    forward_pass: ForwardPass
    images: ImageList
    topk: int
    sheet: Sheet | None

    def __post_init__(self) -> None:
        self._place = {path: place for place, path in enumerate(self.images.paths)}

    @torch.inference_mode()
    def rows(self, batch: Batch) -> list[Row]:
        """Return what was made of a batch's pictures, in the order of the list."""
        rows = [Row(path, error=reason) for path, reason in batch.bad]
        if len(batch.indices):
            images = self.forward_pass.normalized(batch.images)
            logits = self.forward_pass.logits(self.view, images)
            are_finite = logits.isfinite().all(dim=1).tolist()
            shares, classes = logits.softmax(dim=1).topk(self.topk, dim=1)
            kept = zip(batch.indices, are_finite, classes.tolist(), shares.tolist(), strict=True)
            for number, (place, is_finite, indices, probabilities) in enumerate(kept):
                path = self.images.paths[place]
                if not is_finite:
                    rows.append(Row(path, error=NOT_FINITE))
                    continue
                row = Row(path, tuple(self._guesses(indices, probabilities)))
                rows.append(row)
                if self.sheet is not None:
                    self.sheet.add(batch.images[number], row)
        return sorted(rows, key=lambda row: self._place[row.path])

    def _guesses(self, indices: Sequence[int], probabilities: Sequence[float]) -> Iterator[Guess]:
        for index, probability in zip(indices, probabilities, strict=True):
            yield Guess(self.images.class_names[index], index, probability)
