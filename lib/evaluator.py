"""One evaluation of a weight file, from its configuration to its result: tools/valid.py's work."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from lib import device as devices
from lib import log, run_folder
from lib.assembly import build_computing, build_eval_loader, place
from lib.checkpoint import WeightFile, load_weights, read_weights
from lib.data import BadImageLedger, ImageList, SetAside, read_val
from lib.distributed import Processes
from lib.engine import BadImages, evaluate
from lib.files import write_atomically
from lib.log import Console, EvalStats
from lib.models.build import build_model
from lib.models.fast import fold_batch_norms
from lib.objective import Computing
from lib.plots import save_confusion

PER_CLASS, CONFUSION = "per_class.csv", "confusion.png"


@dataclass(frozen=True)
class EvalRequest:
    """What the command line asks of an evaluation, beside its configuration."""

    data_path: Path | str  # a folder, or the address of a packed data set
    weights: Path
    folder: Path  # for result.json and what else is asked for
    name: str  # of the yaml
    per_class: bool = False  # write per_class.csv
    confusion: bool = False  # write confusion.png


def evaluate_weights(config: CfgNode, request: EvalRequest, processes: Processes) -> EvalStats:
    """Evaluate on DATASET.TEST_SET, print the `Test:` line and write result.json; return figures.

    Raises ValueError and FileNotFoundError for data or weights that do not fit.
    """
    began_s, is_main = time.monotonic(), processes.ranks.is_main
    if is_main:
        request.folder.mkdir(parents=True, exist_ok=True)
    console = Console(is_main)
    file = read_weights(request.weights)
    network, loaded = _network(config, file)
    images = read_val(
        request.data_path,
        val_set=config.DATASET.TEST_SET,
        class_names=file.class_names,
        num_classes=file.num_classes,
        train_set=config.DATASET.TRAIN_SET,
        aside=SetAside(config.DATASET.VAL_SHARE, config.DATASET.SPLIT_SEED),
    )
    computing = build_computing(config, processes, amp_backend="torch")
    place(network, processes.device, config.TRAIN.MEMORY_FORMAT)
    for line in (
        f"network {config.MODEL.NAME}, {loaded}",
        f"device {devices.describe(processes.device)}, {processes.ranks.world_size} card(s), "
        f"precision {computing.precision.describe()}; {len(images)} images of {request.data_path}"
        f"{images.form}",
    ):
        console.say(line)
    loader = build_eval_loader(config, images, processes)
    if is_main:
        for name in (run_folder.RESULT, run_folder.BAD_IMAGES, PER_CLASS, CONFUSION):
            (request.folder / name).unlink(missing_ok=True)  # of an earlier evaluation
    stats, num_bad = _evaluate(
        config, request, computing, network=network, images=images, loader=loader
    )
    if is_main:
        report = {
            "kind": "eval",
            "network": config.MODEL.NAME,
            "config": request.name,
            "weights": str(request.weights),
            "device": processes.device.type,
            "cards": processes.ranks.world_size,
            "batch_size": config.TEST.BATCH_SIZE_PER_GPU,
            "precision": computing.precision.name,
            "images_per_s": round(stats.images_per_s, 1),
            **log.eval_record(stats),
            "num_bad_images": num_bad,
            "duration_s": round(time.monotonic() - began_s, 1),
        }
        log.write_json(report, request.folder / run_folder.RESULT)
        if stats.metrics.num_not_finite:
            console.say("[Warning] the loss is NaN or infinite: are the weights?")
        console.say(
            f"{stats.metrics.num_images} of {stats.num_expected} images used, "
            f"{stats.images_per_s:.1f} images/s; results are in {request.folder}"
        )
        console.say(log.test_line(stats))  # last: what parses this log takes the last match
        _write_details(request, stats, class_names=images.class_names)
    return stats


def _network(config: CfgNode, file: WeightFile) -> tuple[nn.Module, str]:
    """Return the network with the weights in it, and a line on them."""
    network: nn.Module = build_model(config, file.num_classes)
    loaded = load_weights(network, file)
    return (fold_batch_norms(network) if config.TEST.FOLD_BN else network), loaded


def _evaluate(
    config: CfgNode,
    request: EvalRequest,
    computing: Computing,
    *,
    network: nn.Module,
    images: ImageList,
    loader: DataLoader,
) -> tuple[EvalStats, int]:
    """Return the figures and the number of undecodable files, which go into the ledger."""
    processes = computing.processes
    console = Console(processes.ranks.is_main)
    ledger = BadImageLedger(
        request.folder / run_folder.BAD_IMAGES if processes.ranks.is_main else None,
        policy=config.DATASET.BAD_IMAGES,
        max_share=config.DATASET.BAD_IMAGES_MAX_SHARE,
        num_images=len(images),
    )

    def on_batch(index: int, bad: BadImages) -> None:
        try:
            ledger.record(bad)
        except ValueError:
            if processes.ranks.world_size == 1:
                raise  # on several ranks all of them raise, at the end
        console.advance_bar()

    console.start_bar("evaluation", len(loader))
    stats = evaluate(
        network,
        loader,
        num_images=len(images),
        computing=computing,
        on_batch=on_batch,
        with_predictions=request.per_class or request.confusion,
    )
    console.end_bar()
    ledger.merge(processes.gather(ledger.bad_images))
    return stats, ledger.num_bad


def per_class_rows(
    confusion: Sequence[Sequence[int]], class_names: Sequence[str]
) -> list[tuple[str, int, int, float, str]]:
    """Return (class, images, correct, percent correct, most frequent wrong class) by class.

    Classes without images are left out; the last field is empty where nothing was wrong.
    """
    rows = []
    for index, counts in enumerate(confusion):
        num_images, num_correct = sum(counts), counts[index]
        if not num_images:
            continue
        wrong = [0 if other == index else count for other, count in enumerate(counts)]
        worst = class_names[wrong.index(max(wrong))] if max(wrong, default=0) else ""
        percent = round(100 * num_correct / num_images, 3)
        rows.append((class_names[index], num_images, num_correct, percent, worst))
    return rows


def _write_details(request: EvalRequest, stats: EvalStats, *, class_names: Sequence[str]) -> None:
    if stats.predictions is None:
        return
    confusion = stats.predictions.confusion(len(class_names))
    if request.per_class:
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(
            ("class", "num_images", "num_correct", "accuracy_top1", "most_confused_with")
        )
        table.writerows(per_class_rows(confusion, class_names))
        encoded = text.getvalue().encode(errors="surrogateescape")
        write_atomically(encoded, request.folder / PER_CLASS)
    if request.confusion:
        save_confusion(confusion, class_names, request.folder / CONFUSION)
