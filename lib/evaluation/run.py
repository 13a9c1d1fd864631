"""One evaluation of a weight file, from its configuration to its result: tools/valid.py's work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from lib.data.bad_images import BadImageLedger, BadImages, lost_classes_remark
from lib.data.build import build_eval_loader, input_choices, input_lines, read_val
from lib.data.image_list import LABEL_FILE, ImageList
from lib.data.packed.reading import files_of
from lib.data.splitting import SetAside
from lib.evaluation.calibration import calibration_measure
from lib.evaluation.classes import ClassChoice, EvaluationSet, read_evaluation_set
from lib.evaluation.forward import ForwardPass, build_forward_pass
from lib.evaluation.loop import evaluate
from lib.evaluation.measure import Measure
from lib.evaluation.real_labels import read_real_labels
from lib.evaluation.table import write_predictions
from lib.metrics.per_class import write_per_class
from lib.metrics.predictions_file import save_predictions
from lib.metrics.stats import EvalStats
from lib.models.build import place, wrap_for_eval
from lib.models.folding import fold_batch_norms
from lib.models.padded import pad_widths, widen
from lib.models.resolver import Resolved, resolve
from lib.models.wrappers import SelectedOutputs
from lib.report import log
from lib.report.plots.confusion import save_confusion
from lib.runtime import device as devices
from lib.runtime import run_folder
from lib.runtime.cli import PartlyFailed
from lib.runtime.console import Console
from lib.runtime.distributed import Processes
from lib.runtime.files import check_outputs, write_json
from lib.runtime.text import counted

RELIABILITY = "reliability.png"

_RESULTS = (run_folder.RESULT, run_folder.PER_CLASS, run_folder.CONFUSION, RELIABILITY)


@dataclass(frozen=True)
class EvalRequest:
    """What the command line asks of an evaluation."""

    data_path: Path | str  # a folder, or the address of a packed data set
    weights: Path | str  # a file, a name of published weights, or their address
    folder: Path  # for result.json and what else is asked for
    name: str  # of the yaml
    cfg: Path | None = None  # None: what is recorded of the weights
    overrides: tuple[str, ...] = ()  # of the configuration
    per_class: bool = False  # write per_class.csv
    confusion: bool = False  # write confusion.png
    calibration: bool = False  # say how far probabilities can be trusted, write reliability.png
    predictions: Path | None = None  # CSV file for what each picture was taken for
    real_labels: Path | None = None  # a real.json
    classes: ClassChoice = field(default_factory=ClassChoice)
    save_predictions: tuple[Path, int] | None = None  # where, and after which epoch

    @property
    def wants_predictions(self) -> bool:
        """True where something is written for which each image's prediction is needed."""
        wanted = (self.per_class, self.confusion, self.calibration)
        return any(wanted) or bool(self.predictions or self.real_labels or self.save_predictions)


def evaluate_weights(request: EvalRequest, processes: Processes) -> EvalStats:
    """Evaluate on DATASET.TEST_SET, print the `Test:` line and write result.json; return figures.

    Raises ValueError and FileNotFoundError for data, weights or files asked for that do not fit.
    """
    began_s, is_main = time.monotonic(), processes.ranks.is_main
    console = Console(is_main)
    resolved = resolve(request.weights, cfg=request.cfg, overrides=request.overrides)
    config, file = resolved.config, resolved.file
    network, loaded = _network(resolved)
    found = read_evaluation_set(
        partial(
            read_val,
            request.data_path,
            val_set=config.DATASET.TEST_SET,
            train_set=config.DATASET.TRAIN_SET,
            aside=_held_out(config, file.path.parent),
        ),
        choice=request.classes,
        class_names=file.class_names,
        num_outputs=file.num_classes,
    )
    images = found.images
    _check_outputs(request, images, config.DATASET.TEST_SET)
    measures = _measures(request, found, num_outputs=file.num_classes)
    network = _view(config, network, found)
    forward_pass = build_forward_pass(config, processes, recipe=resolved.recipe)
    place(network, processes.device, config.TRAIN.MEMORY_FORMAT)
    for line in (
        *resolved.lines,
        *_order_lines(resolved, request.classes),
        f"loaded {loaded}",
        f"device {devices.describe(processes.device)}, {processes.ranks.world_size} card(s), "
        f"precision {forward_pass.precision.describe()}; {counted(len(images), 'image')} of "
        f"{request.data_path}{images.form}",
        *found.remarks,
        *images.left_out.lines(request.data_path),
        *input_lines(config),
    ):
        console.say(line)
    loader = build_eval_loader(config, images, processes, resolved.recipe)
    if is_main:
        request.folder.mkdir(parents=True, exist_ok=True)
        _remove_earlier_results(request)
    stats, num_bad = _evaluate(
        config, request, forward_pass, network=network, images=images, loader=loader
    )
    if is_main:
        measured = [measure(stats.predictions) for measure in measures if stats.predictions]
        report = _report(resolved, request, forward_pass, stats=stats, num_bad=num_bad)
        duration_s = round(time.monotonic() - began_s, 1)
        report |= {"duration_s": duration_s, "recipe": resolved.recipe.as_json()}
        for extra in (input_choices(config), found.record, *(extra.record for extra in measured)):
            report |= extra
        write_json(report, request.folder / run_folder.RESULT)
        lines = [extra.line for extra in measured]
        _say_figures(console, request, stats, paths=images.paths, lines=lines)
        _write_details(console, request, stats, images)
    return stats


def _network(resolved: Resolved) -> tuple[nn.Module, str]:
    """Return the network with the weights in it, and a line on them."""
    config = resolved.config
    network, loaded = resolved.build()
    multiple = config.TRAIN.WIDTH_MULTIPLE
    if config.TEST.FOLD_BN:
        return widen(fold_batch_norms(network), multiple), loaded
    return pad_widths(network, multiple), loaded


def _order_lines(resolved: Resolved, choice: ClassChoice) -> tuple[str, ...]:
    """Return what is to be said of how the class folders became the network's outputs."""
    if choice.train_classes is not None:
        return (f"class order by --train_classes {choice.train_classes}",)
    if resolved.class_names is not None or choice.class_map is not None:
        return ()
    return (
        "class order assumed: the sorted names of the class folders, since nothing says in which "
        "order the weights have them (--train_classes does)",
    )


def _view(config: CfgNode, network: nn.Module, found: EvaluationSet) -> nn.Module:
    """Return the network as it is evaluated: with mirror images, through the outputs compared."""
    network = wrap_for_eval(config, network)
    return network if found.outputs is None else SelectedOutputs(network, found.outputs)


def _held_out(config: CfgNode, folder: Path) -> SetAside:
    data = config.DATASET
    return SetAside.of_run(data.VAL_SHARE, data.SPLIT_SEED, folder)


def _measures(request: EvalRequest, found: EvaluationSet, *, num_outputs: int) -> list[Measure]:
    """Return the further figures that are asked for, with all that they need at hand."""
    measures: list[Measure] = []
    if request.real_labels is not None:
        labels = read_real_labels(request.real_labels, found, num_outputs=num_outputs)
        measures.append(labels.measure)
    if request.calibration:
        measures.append(calibration_measure(request.folder / RELIABILITY))
    return measures


def _check_outputs(request: EvalRequest, images: ImageList, test_set: str) -> None:
    """Raise ValueError where what is read, or a training run's results, would be replaced."""
    choice, val_set = request.classes, Path(request.data_path) / test_set
    if images.contents is None and val_set.is_dir():
        run_folder.check_apart(request.folder, val_set)
    read = (
        *run_folder.read_with(request.weights),
        request.cfg,
        request.real_labels,
        choice.class_map,
        choice.train_classes,
        *(folder / LABEL_FILE for folder in (val_set.parent, val_set)),
    )
    # Results lie outside the data, so that they are no pictures of it; of those there may be many.
    data = images.paths if images.contents is None else files_of(request.data_path)
    names = (*_RESULTS, run_folder.BAD_IMAGES)
    results = {f"--out {name}": request.folder / name for name in names}
    check_outputs({**results, "--predictions": request.predictions}, read)
    check_outputs({"--predictions": request.predictions}, data)
    if (request.folder / run_folder.METRICS).exists():
        raise ValueError(
            f"{request.folder} is the folder of a training run, whose results would be replaced: "
            f"give another --out, such as {request.folder / run_folder.EVAL}"
        )


def _remove_earlier_results(request: EvalRequest) -> None:
    if (request.folder / run_folder.RESULT).is_file():  # then these are an evaluation's
        for name in _RESULTS:
            (request.folder / name).unlink(missing_ok=True)
    (request.folder / run_folder.BAD_IMAGES).unlink(missing_ok=True)  # it would be added to
    if request.predictions is not None:
        if request.predictions.is_dir():  # told before an evaluation, not after
            raise IsADirectoryError(f"{request.predictions} is a directory: name a file")
        request.predictions.parent.mkdir(parents=True, exist_ok=True)


def _report(
    resolved: Resolved,
    request: EvalRequest,
    forward_pass: ForwardPass,
    *,
    stats: EvalStats,
    num_bad: int,
) -> dict[str, object]:
    processes = forward_pass.processes
    return {
        "kind": "eval",
        "network": resolved.arch,
        "config": request.name,
        "weights": str(resolved.file.path),
        "device": processes.device.type,
        "cards": processes.ranks.world_size,
        "batch_size": resolved.config.TEST.BATCH_SIZE_PER_GPU,
        "precision": forward_pass.precision.name,
        "images_per_s": round(stats.images_per_s, 1),
        **log.eval_record(stats),
        "num_bad_images": num_bad,
    }


def _say_figures(
    console: Console,
    request: EvalRequest,
    stats: EvalStats,
    *,
    paths: Sequence[str],
    lines: Sequence[str],
) -> None:
    if stats.metrics.num_not_finite:
        table = request.predictions
        unnamed = f"; {table} names no class for such images" if table else ""
        console.say(f"{log.not_finite_line(stats, paths)}: are the weights sound?{unnamed}")
    for line in lines:
        console.say(line)
    place = request.save_predictions[0] if request.save_predictions else request.folder
    console.say(
        f"{stats.metrics.num_images} of {stats.num_expected} images used, "
        f"{stats.images_per_s:.1f} images/s; results are in {place}"
    )
    console.say(log.test_line(stats))  # last: what parses this log takes the last match


def _evaluate(
    config: CfgNode,
    request: EvalRequest,
    forward_pass: ForwardPass,
    *,
    network: nn.Module,
    images: ImageList,
    loader: DataLoader,
) -> tuple[EvalStats, int]:
    """Return the figures and the number of undecodable files, which go into the ledger."""
    processes = forward_pass.processes
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
        forward_pass=forward_pass,
        on_batch=on_batch,
        with_predictions=request.wants_predictions,
    )
    console.end_bar()
    ledger.merge(processes.gather(ledger.bad_images))
    if remark := lost_classes_remark(images, ledger.bad_images):
        console.say(remark)
    return stats, ledger.num_bad


def _write_details(
    console: Console, request: EvalRequest, stats: EvalStats, images: ImageList
) -> None:
    if not stats.metrics.num_images:
        raise PartlyFailed(f"none of the {len(images)} images can be read: nothing was evaluated")
    if stats.predictions is None:
        return
    class_names = images.class_names
    if request.predictions is not None:
        write_predictions(stats.predictions, images, request.predictions, root=request.data_path)
    if request.save_predictions is not None:
        path, epoch = request.save_predictions
        data = request.data_path
        save_predictions(stats.predictions, path, images=images, data_path=data, epoch=epoch)
    if not (request.per_class or request.confusion):
        return
    confusion = stats.predictions.confusion(len(class_names))
    if request.per_class:
        write_per_class(confusion, class_names, request.folder / run_folder.PER_CLASS)
    if request.confusion:
        remark = save_confusion(confusion, class_names, request.folder / run_folder.CONFUSION)
        if remark:
            console.say(f"[Warning] {remark}")
