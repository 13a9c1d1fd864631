"""The loops of lib/training/loop.py against closed forms and plain PyTorch."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.data.bad_images import BadImage
from lib.data.loading import Batch
from lib.data.normalize import Normalize
from lib.evaluation.forward import ForwardPass
from lib.evaluation.loop import evaluate
from lib.metrics.meter import Metrics
from lib.metrics.stats import IntervalStats
from lib.runtime.distributed import Processes
from lib.runtime.environment import RankInfo
from lib.runtime.precision import Precision
from lib.training.loop import train_one_epoch
from lib.training.steps import StepRange, TrainHooks

CPU = torch.device("cpu")


class TinyNet(nn.Module):
    """Pools N x 3 x H x W and maps it to classes."""

    def __init__(self, num_classes: int = 7):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.mean(dim=(2, 3)))


def batches(
    sizes: list[int], num_classes: int = 7, bad: list[BadImage] | None = None
) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            torch.randint(0, 256, (size, 8, 8, 3), dtype=torch.uint8, generator=generator),
            torch.randint(0, num_classes, (size,), generator=generator),
            bad or [],
            indices=tuple(range(sum(sizes[:number]), sum(sizes[: number + 1]))),
        )
        for number, size in enumerate(sizes)
    ]


def computing() -> ForwardPass:
    return ForwardPass(Processes(RankInfo(), CPU), Precision("fp32", CPU), Normalize())


class Recorder:
    """Hooks that keep what they are told."""

    def __init__(self, *, rate: float = 0.1, stop_after: int | None = None):
        self.intervals: list[IntervalStats] = []
        self.first_steps: list[float] = []
        self.bad: list[BadImage] = []
        self.steps_done: list[int] = []
        self.sums: list[Metrics] = []
        self._rate, self._stop_after = rate, stop_after

    def hooks(self, *, with_sums: bool = False) -> TrainHooks:
        def after_step(num_done: int, sums) -> int:
            self.steps_done.append(num_done)
            if with_sums:
                self.sums.append(sums())
            return 15 if num_done == self._stop_after else 0

        return TrainHooks(
            learning_rate=lambda step: self._rate / (1 + step),
            on_first_step=self.first_steps.append,
            on_interval=self.intervals.append,
            on_bad_images=self.bad.extend,
            after_step=after_step,
        )


def run(model: nn.Module, data: list[Batch], recorder: Recorder, **settings: object):
    first = settings.pop("first", 0)
    end = settings.pop("end", len(data))
    steps = StepRange(first, end, len(data), print_freq=settings.pop("print_freq", 2), num_warmup=2)
    return train_one_epoch(
        model,
        data[first:],
        optimizer=torch.optim.SGD(model.parameters(), lr=99.0, momentum=0.9),
        forward_pass=computing(),
        num_micro_batches=settings.pop("num_micro_batches", 1),
        steps=steps,
        hooks=recorder.hooks(with_sums=settings.pop("with_sums", False)),
        metrics_so_far=settings.pop("metrics_so_far", Metrics()),
    )


def test_an_epoch_does_exactly_the_plain_pytorch_steps_with_the_rate_of_each_step() -> None:
    model, data = TinyNet(), batches([4, 4, 4, 3])
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.0, momentum=0.9)
    for step, batch in enumerate(data):
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        optimizer.zero_grad()
        F.cross_entropy(plain(Normalize()(batch.images)), batch.targets).backward()
        optimizer.step()
    run(model, data, Recorder())
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("num_batches", [1, 2, 5, 10, 11])
def test_epochs_of_few_batches_give_averages_over_all_images(num_batches: int) -> None:
    """Pitfalls 19 and 21: short epochs work, and a short last batch counts what it has."""
    data = batches([4] * (num_batches - 1) + [3])
    recorder = Recorder()
    stats = run(TinyNet(), data, recorder)
    assert stats.metrics.num_images == 4 * (num_batches - 1) + 3
    assert stats.num_steps_done == num_batches
    assert stats.images_per_s > 0 and stats.time_s > 0
    assert len(recorder.first_steps) == min(2, num_batches)
    assert recorder.intervals[-1].step == num_batches - 1
    assert sum(i.metrics.num_images for i in recorder.intervals) == stats.metrics.num_images


def test_images_per_second_is_images_over_wall_time() -> None:
    """Pitfall 21."""
    recorder = Recorder()
    stats = run(TinyNet(), batches([4] * 6 + [1]), recorder)
    for interval, num_steps in zip(recorder.intervals, (1, 2, 2, 2), strict=True):
        seconds = interval.metrics.num_images / interval.images_per_s
        assert seconds == pytest.approx(interval.time_s * num_steps)
    assert stats.images_per_s * stats.time_s == pytest.approx((4 * 4 + 1) / 5)


def test_the_step_range_ends_a_performance_run_after_its_last_step() -> None:
    """Pitfall 2: --stop_step 3 is 3 steps."""
    recorder = Recorder()
    stats = run(TinyNet(), batches([4] * 9), recorder, end=3)
    assert recorder.steps_done == [1, 2, 3]
    assert stats.num_steps_done == 3
    assert recorder.intervals[-1].step == 2


def test_a_stop_ends_the_epoch_after_that_step_with_whole_sums() -> None:
    recorder = Recorder(stop_after=4)
    stats = run(TinyNet(), batches([4] * 9), recorder)
    assert stats.stop_signal == 15
    assert stats.num_steps_done == 4
    assert stats.metrics.num_images == 16


def test_sums_after_any_step_are_those_of_all_steps_so_far_resumed_ones_included() -> None:
    data = batches([4, 4, 4, 4, 2])
    whole = Recorder()
    run(TinyNet(), data, whole, with_sums=True)
    assert [s.num_images for s in whole.sums] == [4, 8, 12, 16, 18]
    before = replace(Metrics(), num_images=8, num_correct_top1=5)
    resumed = Recorder()
    stats = run(TinyNet(), data, resumed, first=2, with_sums=True, metrics_so_far=before)
    assert [s.num_images for s in resumed.sums] == [12, 16, 18]
    assert stats.metrics.num_images == 18


def test_bad_images_reach_the_caller() -> None:
    recorder = Recorder()
    run(TinyNet(), batches([2, 2], bad=[BadImage("a.jpg", "cut")]), recorder)
    assert recorder.bad == [BadImage("a.jpg", "cut")] * 2


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_scale() -> None:
    """Pitfall 23."""

    class Breaks(TinyNet):
        num_calls = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.num_calls += 1
            return super().forward(images) * (float("nan") if self.num_calls == 4 else 1.0)

    with pytest.raises(ValueError, match=r"step 3 .*learning rate 0\.025.*loss scale 1") as error:
        run(Breaks(), batches([4] * 8), Recorder(), print_freq=5)
    assert "\n" not in str(error.value)


def test_the_host_waits_for_the_device_once_a_log_interval() -> None:
    """Pitfall 20: scalars leave the device only where a line is printed."""
    count = 0
    plain_tolist, plain_item = torch.Tensor.tolist, torch.Tensor.item

    def counted(plain):
        def call(tensor: torch.Tensor):
            nonlocal count
            count += 1
            return plain(tensor)

        return call

    model = TinyNet()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", counted(plain_tolist))
        patch.setattr(torch.Tensor, "item", counted(plain_item))
        run(model, batches([4] * 21), Recorder(), print_freq=10)
    assert count == 3  # lines after steps 0, 10 and 20


def test_evaluation_counts_every_image_once_and_its_predictions_agree() -> None:
    model, data = TinyNet(), batches([5, 5, 2])
    stats = evaluate(
        model,
        data,
        num_images=12,
        forward_pass=computing(),
        on_batch=lambda index, bad: None,
        with_predictions=True,
    )
    images = torch.cat([Normalize()(b.images) for b in data])
    targets = torch.cat([b.targets for b in data])
    logits = model(images).detach()
    assert stats.metrics.num_images == stats.num_expected == 12
    assert stats.metrics.num_correct_top1 == int((logits.argmax(1) == targets).sum())
    assert stats.metrics.loss == pytest.approx(float(F.cross_entropy(logits, targets)), abs=2e-6)
    predictions = stats.predictions
    assert predictions is not None
    shares, classes = logits.softmax(1).topk(5)
    assert predictions.indices.tolist() == list(range(12))
    assert torch.equal(predictions.targets, targets) and torch.equal(predictions.classes, classes)
    torch.testing.assert_close(predictions.probabilities, shares)
    confusion = predictions.confusion(7).blocks(1).tolist()
    assert sum(map(sum, confusion)) == 12
    assert sum(row[i] for i, row in enumerate(confusion)) == stats.metrics.num_correct_top1


def test_images_with_outputs_that_are_not_finite_are_wrong_counted_and_named() -> None:
    """Fault S8."""

    class Breaks(TinyNet):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = super().forward(images)
            logits[-1, 3] = float("nan")
            return logits

    stats = evaluate(
        Breaks(),
        batches([5, 5, 2]),
        num_images=12,
        forward_pass=computing(),
        on_batch=lambda index, bad: None,
        with_predictions=True,
    )
    assert stats.not_finite == (4, 9, 11) and stats.metrics.num_not_finite == 3
    assert stats.predictions is not None
    right = stats.predictions.answers == stats.predictions.targets
    assert not right[list(stats.not_finite)].any()
    assert int(right.sum()) == stats.metrics.num_correct_top1


def test_evaluation_does_not_depend_on_how_the_images_are_grouped() -> None:
    """Pitfall 18: sums of integers are the same in any grouping."""
    model, data = TinyNet(), batches([6, 6])
    images = torch.cat([b.images for b in data])
    targets = torch.cat([b.targets for b in data])
    regrouped = [Batch(i, t, []) for i, t in zip(images.split(5), targets.split(5), strict=True)]
    results = [
        evaluate(model, d, num_images=12, forward_pass=computing(), on_batch=lambda i, b: None)
        for d in (data, regrouped)
    ]
    assert results[0].metrics == results[1].metrics


def test_evaluation_with_fewer_than_five_classes_has_a_top5() -> None:
    """Pitfall 22."""
    stats = evaluate(
        TinyNet(3),
        batches([4], num_classes=3),
        num_images=4,
        forward_pass=computing(),
        on_batch=lambda index, bad: None,
    )
    assert stats.metrics.accuracy_top5 == 100.0


def test_a_batch_of_undecodable_files_only_is_reported_and_left_out() -> None:
    empty = Batch(
        torch.zeros(0, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(0, dtype=torch.int64),
        [BadImage("x", "y")],
    )
    seen: list[BadImage] = []
    stats = evaluate(
        TinyNet(),
        [*batches([3]), empty],
        num_images=4,
        forward_pass=computing(),
        on_batch=lambda index, bad: seen.extend(bad),
    )
    assert stats.metrics.num_images == 3 and stats.num_expected == 4
    assert seen == [BadImage("x", "y")]


@pytest.mark.parametrize("num_micro_batches", [2, 3, 9])
def test_a_batch_computed_in_parts_is_the_whole_batch(num_micro_batches: int) -> None:
    """Parts may differ in size, and a short last batch has fewer."""
    torch.manual_seed(0)
    whole = TinyNet()
    parts = copy.deepcopy(whole)
    data = batches([8, 8, 5, 1])
    expected, found = (
        run(model, data, Recorder(), num_micro_batches=number)
        for model, number in ((whole, 1), (parts, num_micro_batches))
    )
    for ours, theirs in zip(parts.parameters(), whole.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    counts = zip(found.metrics.counts(), expected.metrics.counts(), strict=True)
    assert all(ours == pytest.approx(theirs) for ours, theirs in counts)
    assert found.num_steps_done == expected.num_steps_done == 4


def test_one_part_at_a_time_is_in_memory() -> None:
    """The second part is computed only after the first one's backward pass."""
    events: list[str] = []
    model = TinyNet()
    model.head.register_forward_hook(lambda *_: events.append("forward"))
    model.head.weight.register_hook(lambda gradient: events.append("backward"))
    run(model, batches([4]), Recorder(), num_micro_batches=2)
    assert events == ["forward", "backward"] * 2
