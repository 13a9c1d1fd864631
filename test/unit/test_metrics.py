"""Exact sums of losses and hits, read once a log interval."""

import math
from fractions import Fraction

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lib.metrics.meter import Meter, Metrics, places_of

CPU = torch.device("cpu")
READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")


def batch(num_images=64, num_classes=10, seed=0):
    """Logits, targets and losses of random pictures."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_images, num_classes, generator=generator)
    targets = torch.randint(num_classes, (num_images,), generator=generator)
    return logits, targets, F.cross_entropy(logits, targets, reduction="none")


def measured(*batches):
    """The sums over some batches."""
    meter = Meter(CPU)
    for step, (logits, targets, losses) in enumerate(batches):
        meter.add(logits, targets, losses, step=step)
    return meter.read().metrics


class Transfers(TorchDispatchMode):
    """Counts the operation by which one number leaves a device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    """The names of the methods by which a tensor's numbers come to the host, call by call."""
    calls = []
    for name in READS:
        method = getattr(torch.Tensor, name)

        def counted(tensor, *arguments, _name=name, _method=method):
            calls.append(_name)
            return _method(tensor, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return calls


def test_counts_and_loss_are_those_of_a_plain_count():
    logits, targets, losses = batch()
    order = logits.argsort(dim=1, descending=True)
    top1 = sum(int(row[0] == target) for row, target in zip(order, targets, strict=True))
    top5 = sum(int(target in row[:5]) for row, target in zip(order, targets, strict=True))
    metrics = measured((logits, targets, losses))
    assert (metrics.num_images, metrics.num_correct_top1, metrics.num_correct_top5) == (
        64, top1, top5,
    )  # fmt: skip
    assert metrics.accuracy_top1 == 100 * top1 / 64
    assert metrics.accuracy_top5 == 100 * top5 / 64
    assert metrics.loss == pytest.approx(losses.double().mean().item(), abs=2**-21)


def test_sums_do_not_depend_on_order_or_on_how_the_images_are_shared_out():
    """Pitfall 18: two processes give the numbers of one, also where 2 does not divide the size."""
    logits, targets, losses = batch(65)
    whole = measured((logits, targets, losses))
    order = torch.randperm(65, generator=torch.Generator().manual_seed(1))
    first, second = order[:32], order[32:]
    shares = [measured((logits[part], targets[part], losses[part])) for part in (first, second)]
    assert shares[0] + shares[1] == whole
    pieces = [(logits[i : i + 1], targets[i : i + 1], losses[i : i + 1]) for i in order]
    assert measured(*pieces) == whole
    assert whole.loss == (shares[1] + shares[0]).loss


@pytest.mark.parametrize("num_classes", [1, 2, 4, 5])
def test_top5_of_up_to_five_classes_is_all_of_them(num_classes):
    """Pitfall 22."""
    assert measured(batch(8, num_classes)).accuracy_top5 == 100.0


@pytest.mark.parametrize("num_classes", [3, 7])
def test_a_network_that_cannot_tell_classes_apart_is_never_right(num_classes):
    """Fault S7: the order of equal scores is no answer."""
    logits, targets = torch.zeros(4, num_classes), torch.tensor([0, 1, 2, 0])
    metrics = measured((logits, targets, torch.ones(4)))
    assert metrics.num_correct_top1 == 0
    assert metrics.num_correct_top5 == (4 if num_classes <= 5 else 0)


def test_a_tie_for_the_first_place_is_right_from_the_second_on():
    """Fault S7."""
    logits = torch.tensor([[9.0, 9, 0, 0, 0, 0], [9, 8, 8, 8, 8, 8]])
    assert places_of(logits, torch.tensor([0, 5])).tolist() == [1, 5]
    assert places_of(logits.flip(0), torch.tensor([0, 2])).tolist() == [0, 5]


def test_images_with_nan_among_their_scores_are_never_right():
    """Fault S8."""
    logits = torch.full((3, 4), math.nan)
    logits[1:, 1:] = 0
    logits[2, 1] = 9
    metrics = measured((logits, torch.tensor([0, 1, 1]), torch.full((3,), math.nan)))
    assert (metrics.num_correct_top1, metrics.num_correct_top5) == (0, 0)


def test_nothing_is_a_loss_of_nan_and_no_accuracy():
    metrics = measured()
    assert metrics == Metrics()
    assert math.isnan(metrics.loss)
    assert metrics.accuracy_top1 == metrics.accuracy_top5 == 0.0


def test_an_empty_batch_adds_nothing():
    """Pitfall 19: a rank whose share is empty takes part."""
    assert measured(batch(0)) == Metrics()
    assert measured(batch(3), batch(0)) == measured(batch(3))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_counted_and_its_first_step_kept(bad):
    """Pitfall 23: a NaN loss can be named with its step, though it is read only later."""
    meter = Meter(CPU)
    for step in (10, 11, 12, 13):
        logits, targets, losses = batch(4)
        if step in (11, 13):
            losses[2] = bad
        meter.add(logits, targets, losses, step=step)
    reading = meter.read()
    assert reading.first_bad_step == 11
    assert reading.metrics.num_not_finite == 2
    assert math.isnan(reading.metrics.loss)
    assert math.isnan((reading.metrics + Metrics(4, 4, 4, 1)).loss)


def test_a_healthy_reading_names_no_bad_step():
    meter = Meter(CPU)
    meter.add(*batch(4), step=3)
    assert meter.read().first_bad_step is None


def test_a_huge_finite_loss_stays_huge():
    """Pitfall 23: a run about to diverge shows no nonsense such as a negative loss."""
    logits, targets, _ = batch(2)
    metrics = measured((logits, targets, torch.tensor([3e38, 1.0])))
    assert metrics.num_not_finite == 0
    assert metrics.loss > 1e5


def test_adding_a_batch_never_needs_its_numbers_on_the_host():
    """Pitfall 20: tensors without data would refuse any read."""
    device = torch.device("meta")
    meter = Meter(device)
    for step in range(3):
        meter.add(
            torch.empty(4, 10, device=device),
            torch.empty(4, dtype=torch.int64, device=device),
            torch.empty(4, device=device),
            step=step,
        )
    with pytest.raises(NotImplementedError, match="meta"):
        meter.read()


def test_only_a_reading_comes_to_the_host_and_it_comes_once(reads):
    """Pitfall 20: one host sync a log interval."""
    batches, scale, meter = [batch(4, seed=step) for step in range(5)], torch.ones(()), Meter(CPU)
    reads.clear()
    with Transfers() as transfers:
        for step, (logits, targets, losses) in enumerate(batches):
            meter.add(logits, targets, losses, step=step)
        assert reads == []
        meter.read(scale)
        assert reads == ["tolist"]
        meter.reset()
    assert reads == ["tolist"]
    assert transfers.count == 0


@pytest.mark.parametrize("scale", [1.0, 65536.0, 2.0**24, 2.0**-10])
def test_the_loss_scale_comes_along_with_the_same_reading(scale):
    """Pitfall 20."""
    assert Meter(CPU).read(torch.tensor(scale)).loss_scale == scale


def test_a_reading_does_not_reset_and_a_reset_does():
    meter = Meter(CPU)
    meter.add(*batch(4), step=0)
    assert meter.read() == meter.read()
    meter.reset()
    assert meter.read().metrics == Metrics()


def test_counts_make_the_metrics_again():
    metrics = Metrics(5, 4, 3, 2, 1)
    assert Metrics(*metrics.counts()) == metrics
    assert (metrics + metrics).counts() == (10, 8, 6, 4, 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 3])
def test_an_image_with_any_output_that_is_not_finite_is_never_right(bad, place):
    """Fault S8: topk may put the right class first all the same."""
    logits = torch.tensor([[9.0, 0, 0, 0], [9.0, 0, 0, 0], [0, 0, 0, 9.0]])
    targets = torch.tensor([0, 0, 3])
    logits[1, place] = bad
    metrics = measured((logits, targets, F.cross_entropy(logits, targets, reduction="none")))
    assert (metrics.num_correct_top1, metrics.num_correct_top5) == (2, 2)
    assert metrics.num_not_finite == 1 and math.isnan(metrics.loss)


def test_losses_of_any_size_are_summed_exactly():
    """Fault S9: they were cut at 2**20 an image; sums of ranks are those of one process."""
    generator = torch.Generator().manual_seed(0)
    exponents = torch.linspace(-19, 127, 1000)
    losses = (1 + torch.rand(1000, generator=generator)).mul(2.0**exponents)
    losses[:3] = torch.tensor([32_407_832.0, 3.4e38, -1e-9])
    logits, targets, _ = batch(1000)
    whole = measured((logits, targets, losses))
    expected = sum(round(Fraction(loss) * 2**20) for loss in losses.tolist())
    assert whole.loss_units == expected
    assert whole.loss == pytest.approx(losses.double().mean().item(), rel=1e-12)
    shares = [measured((logits[i::2], targets[i::2], losses[i::2])) for i in range(2)]
    assert shares[0] + shares[1] == whole
    assert measured((logits[:1], targets[:1], losses[:1])).loss == 32_407_832.0
