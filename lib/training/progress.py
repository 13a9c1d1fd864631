"""The state of a training run: what is saved, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats, EvalStats
from lib.models.resolver import facts_of
from lib.models.weights.facts import facts_text, with_facts
from lib.report.log import eval_record, unaveraged_record
from lib.runtime.distributed import Processes
from lib.training.build import TrainingSetup
from lib.training.checkpoint import (
    FORMAT,
    Position,
    TrainingState,
    put_back,
    restore_rng_states,
    to_cpu,
)
from lib.training.optim import check_same_groups, check_state_sizes


@dataclass
class Progress:
    """What changes from epoch to epoch and goes into a checkpoint beside weights and optimizer."""

    metrics: Metrics  # of the unfinished epoch's steps, over all ranks
    best_accuracy: float  # top-1 in percent; -1: nothing was evaluated yet
    report: dict[str, object]  # what result.json will say so far

    def note_epoch(self, stats: EpochStats) -> None:
        """Put the training figures of an epoch, or of its part until a stop, into the report.

        The speed is the whole run's, resumes included; the launchers report the last epoch's.
        """
        before_s, num_before = (self.report.get(k, 0) for k in ("train_time_s", "num_images_timed"))
        time_s = before_s + stats.timed_s  # type: ignore[operator]
        num_images = num_before + stats.num_images_timed  # type: ignore[operator]
        if num_images:  # none where all was done before a resume: its figure stands
            self.report["images_per_s"] = round(num_images / time_s, 1)
        self.report.update(
            train_time_s=round(time_s, 3),
            num_images_timed=num_images,
            images_per_s_last_epoch=round(stats.images_per_s, 1),
            step_time_ms=round(1000 * stats.time_s, 3),
            train_loss=round(stats.last_loss, 5),
            train_accuracy_top1=round(stats.metrics.accuracy_top1, 3),
        )

    def note_evaluation(self, stats: EvalStats, last_weights_stats: EvalStats | None) -> None:
        """Put an evaluation into the report, and that of the last weights beside averaged ones."""
        if last_weights_stats is not None:
            self.report.update(unaveraged_record(last_weights_stats))
        self.report.update(eval_record(stats))

    def num_epochs_since_best(self, num_done: int) -> int:
        """Return how many of `num_done` epochs came after the best; 0 where its file is lost."""
        best_epoch = self.report.get("best_epoch")
        if not isinstance(best_epoch, int) or self.best_accuracy < 0:
            return 0
        return num_done - 1 - best_epoch

    def with_saved_speed(self, stats: EpochStats) -> EpochStats:
        """Return the figures of an epoch whose last step was done before a resume."""
        saved: dict[str, float] = self.report  # type: ignore[assignment]
        return replace(
            stats,
            time_s=saved["step_time_ms"] / 1000,
            images_per_s=saved.get("images_per_s_last_epoch", saved["images_per_s"]),
            num_images_timed=0,
            last_loss=saved["train_loss"],
        )


def training_state(
    setup: TrainingSetup,
    progress: Progress,
    *,
    position: Position,
    metrics: Metrics,
    rng: Sequence[dict[str, object]],
) -> TrainingState:
    """Return what checkpoint.pth.tar holds at `position`, with the tensors where they are.

    `metrics` are those of the unfinished epoch over all ranks, `rng` each rank's generators.
    """
    config, data = setup.config, setup.data
    names = data.images.class_names
    state = TrainingState(
        format=FORMAT,
        state_dict=setup.network.state_dict(),
        optimizer=setup.optimizer.state_dict(),
        position=asdict(position),
        optimizer_name=config.TRAIN.OPTIMIZER,
        precision=setup.forward_pass.precision.state_dict(),
        rng=list(rng),
        seed=setup.seed,
        decoder=data.decoder,
        teacher=setup.objective.teacher_sum,
        sums=list(metrics.counts()),
        best_accuracy=progress.best_accuracy,
        report=progress.report,
        num_images=len(data.images),
        names_sum=data.names.sum,
        names_aside=list(data.names.held_out),
        class_names=list(names),
        class_to_idx={name: index for index, name in enumerate(names)},
        config=config.dump(),
        hrnet=facts_text(facts_of(config, names)),
    )
    if setup.average is not None:
        state["state_dict_ema"] = setup.average.network.state_dict()
        state["num_ema_updates"] = setup.average.num_updates
    return state


def restore_training(setup: TrainingSetup, processes: Processes) -> Progress:
    """Put back what `training_state` has saved, but the weights, which `setup` has already.

    Returns the progress of the resumed run, or that of a new one.
    Raises ValueError for a state that is damaged, or that is of another optimizer.
    """
    start, state, config = setup.start, setup.start.state, setup.config
    if state is None:
        return Progress(Metrics(), -1.0, {})
    if state["optimizer_name"] != config.TRAIN.OPTIMIZER:
        raise ValueError(
            f"{start.path} was trained with TRAIN.OPTIMIZER {state['optimizer_name']}, not "
            f"{config.TRAIN.OPTIMIZER}: resume needs the same"
        )
    optimizer = setup.optimizer
    check_same_groups(optimizer, state["optimizer"])
    # Weight decay and momentum are the present configuration's, not the saved run's.
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    with put_back("optimizer's state", start.path):
        optimizer.load_state_dict(state["optimizer"])
        check_state_sizes(optimizer)
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        parameters = group["params"]
        group.clear()  # the saved run's settings may be more
        group.update(setting, params=parameters)
    with put_back("loss scale", start.path):
        setup.forward_pass.precision.load_state_dict(state["precision"])
    if setup.average is not None and "state_dict_ema" in state:
        with put_back("averaged weights", start.path):
            setup.average.load(state["state_dict_ema"], state["num_ema_updates"])
    states, rank = state["rng"], processes.ranks.rank
    if rank < len(states):
        with put_back("random generators' state", start.path):
            restore_rng_states(states[rank], processes.device)
    with put_back("sums", start.path):
        return Progress(Metrics(*state["sums"]), state["best_accuracy"], dict(state["report"]))


def bare_weights(setup: TrainingSetup) -> Mapping[str, object]:
    """Return the weights that are evaluated, which carry what they need to be used alone."""
    network = setup.eval_network.state_dict()
    weights = {name: to_cpu(value) for name, value in network.items()}
    return with_facts(weights, facts_of(setup.config, setup.data.images.class_names))
