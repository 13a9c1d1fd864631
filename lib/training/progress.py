"""What a checkpoint.pth.tar of a training run holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from yacs.config import CfgNode

from lib.metrics.meter import Metrics
from lib.models.resolver import facts_of
from lib.models.weights.facts import facts_text, with_facts
from lib.training.build import Progress, TrainingSetup
from lib.training.checkpoint import FORMAT, Position, TrainingState, to_cpu


def training_state(
    parts: TrainingSetup,
    progress: Progress,
    config: CfgNode,
    *,
    position: Position,
    sums: Metrics,
    rng: Sequence[dict[str, object]],
) -> TrainingState:
    """Return the state at `position`, with the tensors where they are.

    `sums` are those of the unfinished epoch over all ranks, `rng` each rank's generators.
    """
    names = parts.images.class_names
    state = TrainingState(
        format=FORMAT,
        state_dict=parts.network.state_dict(),
        optimizer=parts.optimizer.state_dict(),
        position=asdict(position),
        optimizer_name=config.TRAIN.OPTIMIZER,
        precision=parts.forward_pass.precision.state_dict(),
        rng=list(rng),
        seed=parts.seed,
        decoder=parts.decoder,
        teacher=parts.objective.teacher_sum,
        sums=list(sums.counts()),
        best_accuracy=progress.best_accuracy,
        report=progress.report,
        num_images=len(parts.images),
        names_sum=parts.names.sum,
        names_aside=list(parts.names.aside),
        class_names=list(names),
        class_to_idx={name: index for index, name in enumerate(names)},
        config=config.dump(),
        hrnet=facts_text(facts_of(config, names)),
    )
    if parts.average is not None:
        state["state_dict_ema"] = parts.average.network.state_dict()
        state["num_ema_updates"] = parts.average.num_updates
    return state


def bare_weights(parts: TrainingSetup, config: CfgNode) -> Mapping[str, object]:
    """Return the weights that are evaluated, which carry what they need to be used alone."""
    network = parts.eval_network.state_dict()
    weights = {name: to_cpu(value) for name, value in network.items()}
    return with_facts(weights, facts_of(config, parts.images.class_names))
