"""What a training run starts from: a checkpoint, the run folder's own, weights, or nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from yacs.config import CfgNode

from lib.data.build import picture_folders
from lib.models.build import network_spec
from lib.models.hrnet import ARCHS
from lib.models.weights.find import find_weights, published
from lib.models.weights.load import Head, WeightFile, load_weights, not_finite, read_weights
from lib.models.weights.transfer import DownloadError
from lib.runtime.distributed import Processes
from lib.runtime.run_folder import CHECKPOINT, check_apart, check_writable, is_signed
from lib.runtime.text import counted, look_alike_among, look_alikes, printable, shorten
from lib.training.checkpoint import Position, TrainingState, load_training_state


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asks of a training run, beside its configuration."""

    data_path: Path | str  # a folder, or the address of a packed data set
    folder: Path  # the run folder
    name: str  # of the yaml, for result.json
    resume: Path | None = None
    auto_resume: bool = False
    stop_step: int | None = None  # a performance run of so many steps
    profile_start_step: int | None = None
    command: str = ""  # what was typed, to be recorded

    def __post_init__(self) -> None:
        if self.stop_step is not None and self.stop_step < 1:
            raise ValueError(f"--stop_step {self.stop_step}: at least 1 step is needed")

    @property
    def is_performance(self) -> bool:
        """True for a run that only measures: no evaluation, no weights written."""
        return self.stop_step is not None

    def wants_own(self, config: CfgNode) -> bool:
        """True where the run folder's checkpoint is to be resumed, if there is one."""
        return bool(self.auto_resume or config.TRAIN.RESUME)

    def checkpoint(self, config: CfgNode) -> Path | None:
        """Return the checkpoint that is asked for; None where there is none to resume."""
        own = self.folder / CHECKPOINT
        if self.resume is None:
            return own if self.wants_own(config) and own.is_file() else None
        resume = Path(os.path.expanduser(self.resume))
        return resume / CHECKPOINT if resume.is_dir() else resume


@dataclass(frozen=True)
class StartingPoint:
    """What was found to start from; read whole, so that the file may be moved afterwards."""

    description: str = "from scratch"
    weights: WeightFile | None = None
    state: TrainingState | None = None  # of a checkpoint to resume

    @property
    def path(self) -> Path | None:
        """The file to start from."""
        return None if self.weights is None else self.weights.path

    @property
    def is_resume(self) -> bool:
        """True where a run is continued, False where a new one begins."""
        return self.state is not None

    def seed(self, default: int) -> int:
        """Return the resumed run's seed, which fixes its data order, or `default`."""
        return default if self.state is None else self.state["seed"]

    @property
    def decoder(self) -> str | None:
        """What decoded the resumed run's training pictures."""
        return None if self.state is None else self.state.get("decoder", "pillow")

    def load_into(self, model: nn.Module, config: CfgNode, class_names: tuple[str, ...]) -> str:
        """Load the weights; return one line that says what the run starts from.

        A new run's classifier is a new one where the configuration allows for it and the weights'
        has another size, or (MODEL.NEW_HEAD) is not known to be of the classes `class_names`.
        """
        if self.weights is None:
            return self.description
        head = Head.SAME
        broken = not_finite(self.weights.weights)
        if broken:
            raise ValueError(
                f"{printable(str(self.path))} is no use to start from: {broken}; take a checkpoint "
                "of an earlier step, or other weights"
            )
        if self.state is None and config.MODEL.NEW_HEAD:
            head = Head.SAME if self.weights.class_names == class_names else Head.NEW
        elif config.MODEL.NUM_CLASSES > 0:
            head = Head.NEW_IF_OTHER
        return f"{self.description}: {load_weights(model, self.weights, head=head)}"


def fetch_pretrained(config: CfgNode, request: TrainRequest) -> None:
    """Have MODEL.PRETRAINED on this machine before the run begins, unless a checkpoint is resumed.

    DISTILL.TEACHER in any case.
    For the first process of each machine: the others wait for it to join them.
    Raises what `find_weights` raises, and ValueError for a name whose network is another.
    """
    if config.DISTILL.TEACHER:
        find_weights(config.DISTILL.TEACHER)
    wanted = config.MODEL.PRETRAINED
    if not wanted or request.checkpoint(config):
        return
    entry = published(wanted)
    if entry is not None and ARCHS[entry.arch] != network_spec(config):
        raise ValueError(
            f"{wanted} is weights of {entry.arch}, but --cfg (MODEL.NAME) is another network, "
            f"{config.MODEL.NAME}: take the yaml of {entry.arch}, or weights of that network "
            "(python tools/weights.py list shows all)"
        )
    try:
        find_weights(wanted)
    except DownloadError as error:
        raise DownloadError(
            f"{error}; to start without: --pretrained none (finetune.py), MODEL.PRETRAINED ''"
        ) from None


def check_request(config: CfgNode, request: TrainRequest) -> None:
    """Raise ValueError for what is wrong before any data or weights are read.

    That is an unknown network, and a run folder that cannot be written or lies among the classes.
    """
    network_spec(config)
    check_writable(request.folder)
    for classes in picture_folders(config, request.data_path):
        check_apart(request.folder, classes)


def find_start(config: CfgNode, request: TrainRequest, processes: Processes) -> StartingPoint:
    """Return what to start from; the first there is of the following.

    After an elastic restart the checkpoint of an earlier attempt; --resume; the run folder's own
    checkpoint where that is asked for; pretrained weights; nothing.
    Raises FileNotFoundError and ValueError for a file that is not there or not of the kind.
    """
    own, ranks = request.folder / CHECKPOINT, processes.ranks
    is_restart = ranks.restart_count > 0 and is_signed(request.folder, ranks.launch_id)
    # Rank 0 signs the folder, so its word holds for the ranks of other machines too.
    is_restart = processes.gather(is_restart)[0]
    path = own if is_restart and own.is_file() else request.checkpoint(config)
    if path is not None:
        state = load_training_state(path)
        return StartingPoint("resumed", WeightFile(path, state["state_dict"], None), state)
    if config.MODEL.PRETRAINED:
        return StartingPoint("pretrained weights", read_weights(config.MODEL.PRETRAINED))
    missing = f"; {own} is not there to resume" if request.wants_own(config) else ""
    return StartingPoint(f"from scratch{missing}")


def check_same_start(start: StartingPoint, processes: Processes) -> None:
    """Raise ValueError where the ranks have not found the same to start from.

    That happens where machines do not share the run folder and only one has the checkpoint.
    """
    found = (start.path is not None, start.state["position"] if start.state else None)
    if any(other != found for other in processes.gather(found)):
        raise ValueError(
            f"the ranks have found different checkpoints (rank {processes.ranks.rank}: "
            f"{start.path or 'none'}): every machine must see the same run folder, so share it, or "
            "copy the checkpoint to each"
        )


def check_work_left(
    start: StartingPoint, position: Position, *, end_epoch: int, measures: bool
) -> None:
    """Raise ValueError where a resumed run has nothing to do that its checkpoint has not done."""
    if position.epoch > end_epoch or (measures and position.epoch >= end_epoch):
        raise ValueError(
            f"{start.path} has {counted(position.epoch, 'epoch')} behind it and --train_epochs "
            f"asks for {end_epoch}: raise --train_epochs"
        )


def starting_position(
    start: StartingPoint, *, num_steps: int, images_per_step: int
) -> tuple[Position, str | None]:
    """Return where the run continues, and a remark where that is not exact.

    A checkpoint taken inside an epoch with another batch size or number of cards continues at the
    step that has seen about as many images.
    """
    if start.state is None:
        return Position(0, 0, num_steps, images_per_step), None
    saved = Position(**start.state["position"])
    step, remark = saved.step, None
    if saved.step >= saved.num_steps:
        step = num_steps
    elif saved.step and saved.images_per_step != images_per_step:
        step = min(num_steps, saved.step * saved.images_per_step // images_per_step)
        remark = (
            f"the checkpoint was taken at step {saved.step} with {saved.images_per_step} images a "
            f"step; with {images_per_step} this epoch goes on at step {step}"
        )
    return Position(saved.epoch, step, num_steps, images_per_step), remark


def decoder_remark(start: StartingPoint, decoder: str) -> str | None:
    """Return a remark where a resumed run's training pictures are decoded in another way."""
    if start.decoder in (None, decoder):
        return None
    return (
        f"the checkpoint's run decoded training pictures with {start.decoder}, this one does with "
        f"{decoder}: pixels differ slightly, and so will the weights"
    )


def teacher_remark(start: StartingPoint, teacher_sum: str) -> str | None:
    """Return a remark where a resumed run goes on under another teacher, with one, or without.

    That may be meant, so it is no error, as with the other settings of the command line.
    """
    if start.state is None:
        return None
    saved = start.state.get("teacher", "")
    if saved == teacher_sum:
        return None
    before, now = (f"SHA-256 {s[:12]}..." if s else "none" for s in (saved, teacher_sum))
    return (
        f"the checkpoint's run learned from another teacher (DISTILL.TEACHER: {before} then, {now} "
        "now): from here on the weights follow the present one"
    )


def class_count(config: CfgNode, class_names: tuple[str, ...]) -> int:
    """Return the number of classes: the data's, which MODEL.NUM_CLASSES must agree with if set."""
    wanted = config.MODEL.NUM_CLASSES
    if wanted and wanted != len(class_names):
        raise ValueError(
            f"MODEL.NUM_CLASSES {wanted}, but the data has {len(class_names)} class folders: "
            "leave it at 0 to take the data's count, or check the data path"
        )
    return len(class_names)


def check_same_data(
    start: StartingPoint, class_names: tuple[str, ...], *, num_images: int, names_sum: str
) -> None:
    """Raise ValueError where a resumed run had other classes, or is amid other images."""
    if start.state is None:
        return
    theirs_images, step = start.state["num_images"], start.state["position"]["step"]
    theirs_sum = start.state.get("names_sum", "")
    if step and theirs_images != num_images:
        raise ValueError(
            f"{start.path} was saved inside an epoch of {theirs_images} images, the data now has "
            f"{num_images}: bring the images back, or begin a new run with --pretrained"
        )
    if step and theirs_sum and names_sum and theirs_sum != names_sum:
        raise ValueError(
            f"{start.path} was saved inside an epoch of {theirs_images} images, and not all of "
            "these have the same names now: bring them back as they were, or begin a new run with "
            "--pretrained"
        )
    theirs = tuple(start.state["class_names"])
    if theirs != class_names:
        raise ValueError(
            f"{start.path} was trained on {len(theirs)} classes ({shorten(theirs)}), the data has "
            f"{len(class_names)} ({shorten(class_names)}): resume needs the same classes; to "
            f"fine-tune on others use --pretrained{look_alikes(theirs, class_names)}"
        )


def look_alike_remarks(start: StartingPoint, class_names: tuple[str, ...]) -> tuple[str, ...]:
    """Return remarks on class names that are others than they seem to be: few people mean that."""
    theirs = () if start.weights is None else start.weights.class_names or ()
    of_data = look_alike_among(class_names)
    of_weights = look_alikes(theirs, class_names).removeprefix("; ")
    return (
        of_data and f"two classes look alike: {of_data}",
        of_weights and f"the weights' classes are not the data's: {of_weights}",
    )
