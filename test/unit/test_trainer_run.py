"""A run: what a run keeps of its epochs, and what it starts with."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lib.config.load import load_config
from lib.data.build import overlap_remarks
from lib.metrics.meter import Metrics
from lib.metrics.stats import EpochStats, EvalStats
from lib.runtime.distributed import Processes
from lib.runtime.environment import RankInfo
from lib.training import run
from lib.training.build import build_training
from lib.training.progress import Progress
from lib.training.start import TrainRequest


def epoch_stats(num_images: int, images_per_s: float) -> EpochStats:
    return EpochStats(
        Metrics(num_images), 0.1, images_per_s, 1, last_loss=1.0, num_images_timed=num_images
    )


def test_the_speed_of_a_run_is_all_its_images_over_all_its_time() -> None:
    """Fault S15: not the last epoch's, which the launchers report."""
    progress = Progress(Metrics(), -1.0, {})
    for num_images, images_per_s in ((400, 100.0), (100, 25.0)):
        progress.note_epoch(epoch_stats(num_images, images_per_s))
    assert progress.report["images_per_s"] == pytest.approx(500 / (400 / 100 + 100 / 25))
    assert progress.report["images_per_s_last_epoch"] == 25.0
    resumed = Progress(Metrics(), -1.0, dict(progress.report))
    done = resumed.with_saved_speed(epoch_stats(0, 0.0))
    assert (done.images_per_s, done.num_images_timed) == (25.0, 0)
    resumed.note_epoch(done)
    assert resumed.report == progress.report | {"train_accuracy_top1": 0.0}


def test_weights_with_outputs_that_are_not_finite_never_take_a_sound_ones_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault S8: until there are sound ones they stand in, however right the rest is."""
    saved: list[int] = []
    monkeypatch.setattr(run, "save_run_predictions", lambda *arguments, epoch: saved.append(epoch))
    progress = Progress(Metrics(), -1.0, {})
    saver = SimpleNamespace(save_weights=lambda name: True)
    fake = SimpleNamespace(progress=progress, saver=saver, setup=None, request=None, writer=None)
    for epoch, (num_right, num_not_finite) in enumerate(((90, 1), (50, 0), (95, 1), (60, 0))):
        metrics = Metrics(100, num_right, 100, 0, num_not_finite)
        run._keep_the_best(fake, epoch, EvalStats(metrics, 100, 0.1, 1.0))  # type: ignore[arg-type]
    assert saved == [0, 1, 3]
    assert progress.best_accuracy == progress.report["best_accuracy_top1"] == 60.0


def test_equal_runs_begin_with_equal_random_generators(tiny_data, tiny_yaml, tmp_path) -> None:
    """Fault R8: Python's own was left as it was."""
    config = load_config(tiny_yaml, ["SEED", "7"])
    states = []
    for _ in range(2):
        random.seed()
        processes = Processes(RankInfo(), torch.device("cpu"))
        build_training(config, TrainRequest(tiny_data, tmp_path, "tiny"), processes)
        states.append(random.getstate())
    assert states[0] == states[1]


def test_folders_that_are_one_and_a_single_class_are_said(tmp_path: Path) -> None:
    """Fault S: training and validation were of the same pictures, without a word."""
    config = load_config()
    for name in ("train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "val").symlink_to("train")
    first, second = overlap_remarks(config, tmp_path)
    assert first == f"{tmp_path}/val/a is the same folder as {tmp_path}/train/a: is that meant?"
    assert f"{tmp_path}/val/b is the same" in second
    (tmp_path / "val").unlink()
    (tmp_path / "val/a").mkdir(parents=True)
    (tmp_path / "val/b").mkdir()
    assert overlap_remarks(config, tmp_path) == []
    (tmp_path / "train/b").rmdir()
    assert "one class alone" in overlap_remarks(config, tmp_path)[0]
