"""One run over pictures: decode, compute, tell, write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lib import device as devices
from lib import run_folder
from lib.assembly import (
    build_computing,
    build_eval_loader,
    eval_view,
    input_lines,
    place,
)
from lib.cli import PartlyFailed
from lib.config import eval_recipe
from lib.data import Batch, ImageList
from lib.distributed import Processes
from lib.files import check_outputs
from lib.log import Console
from lib.objective import Computing
from lib.plots import Tile, save_sheet
from lib.predict import cam, writing
from lib.predict.inputs import expand
from lib.predict.network import load_network
from lib.predict.writing import NOT_FINITE, Guess, Row
from lib.readable import readable, shorten
from lib.stops import stops_noted

NUM_TILES = 60  # of the contact sheet


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

    def __post_init__(self) -> None:
        if self.topk < 1:
            raise ValueError(f"--topk {self.topk}: 1 or more is needed")
        writing.check_ending(self.out)
        if self.show is not None and self.show.suffix.lower() != ".png":
            raise ValueError(f"--show {self.show}: its ending must be .png")
        if self.with_cam and self.show is None:
            raise ValueError("--cam needs --show, the picture to draw the activation maps in")


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
    loaded = load_network(request.checkpoint, request.cfg, request.overrides)
    config, network, names = loaded.config, loaded.network, loaded.class_names
    console = Console(enabled=True)
    for said in (*loaded.lines, *input_lines(config), *left_out_lines):
        console.say(said)
    computing = build_computing(config, processes, amp_backend="torch")
    place(network, processes.device, config.TRAIN.MEMORY_FORMAT)
    console.say(
        f"device {devices.describe(processes.device)}, precision "
        f"{computing.precision.describe()}; {len(paths)} picture"
        f"{'' if len(paths) == 1 else 's'}"
    )
    images = ImageList(paths, (0,) * len(paths), names)
    topk = min(request.topk, len(names))
    sheet = _Sheet() if request.show else None
    work = _Work(network, eval_view(config, network), computing, images, topk=topk, sheet=sheet)
    failed: list[Row] = []
    loader = build_eval_loader(config, images, processes, eval_recipe(config))
    width = writing.path_width(paths)
    with stops_noted() as check, writing.open_writer(request.out, topk) as writer:
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
        if request.show is not None and work.sheet is not None:
            work.sheet.save(request.show, work, with_cam=request.with_cam)
    for path in filter(None, (request.out, request.show)):
        console.say(f"written: {path}")
    if failed:
        raise PartlyFailed(_account(failed, len(paths)))


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
class _Sheet:
    """The first pictures, as the network sees them."""

    pixels: list[torch.Tensor] = field(default_factory=list)  # uint8 H x W x 3
    rows: list[Row] = field(default_factory=list)

    def add(self, pixels: torch.Tensor, row: Row) -> None:
        if len(self.rows) < NUM_TILES:
            self.pixels.append(pixels.clone())
            self.rows.append(row)

    def save(self, path: Path, work: _Work, *, with_cam: bool) -> None:
        """Draw what was added; raises OSError."""
        heats = work.heats(self) if with_cam else [None] * len(self.rows)
        tiles = [
            Tile(
                pixels.numpy(),
                Path(readable(row.path)).name,
                readable(row.guesses[0].name),
                row.guesses[0].probability,
                heat,
            )
            for pixels, row, heat in zip(self.pixels, self.rows, heats, strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_sheet(tiles, path, num_all=len(work.images))


@dataclass
class _Work:
    network: nn.Module  # what the activation maps are of
    view: nn.Module  # what is asked for the classes: `network`, or with TEST.FLIP its mirrored mean
    computing: Computing
    images: ImageList
    topk: int
    sheet: _Sheet | None

    def __post_init__(self) -> None:
        self._place = {path: place for place, path in enumerate(self.images.paths)}

    @torch.inference_mode()
    def rows(self, batch: Batch) -> list[Row]:
        """Return what was made of a batch's pictures, in the order of the list."""
        rows = [Row(path, error=reason) for path, reason in batch.bad]
        if len(batch.indices):
            logits, _ = self.computing.logits(self.view, batch)
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

    def heats(self, sheet: _Sheet) -> list[np.ndarray]:
        """Return the activation map of each picture of the sheet, for its likeliest class."""
        heats: list[np.ndarray] = []
        device, size = self.computing.processes.device, 16  # gradients need memory
        for begin in range(0, len(sheet.rows), size):
            part = slice(begin, begin + size)
            pixels = torch.stack(sheet.pixels[part]).to(device)
            classes = torch.tensor([row.guesses[0].index for row in sheet.rows[part]])
            images = self.computing.normalize(pixels)
            heats.extend(cam.class_activations(self.network, images, classes.to(device)))
        return heats

    def _guesses(self, indices: Sequence[int], probabilities: Sequence[float]) -> Iterator[Guess]:
        for index, probability in zip(indices, probabilities, strict=True):
            yield Guess(self.images.class_names[index], index, probability)
