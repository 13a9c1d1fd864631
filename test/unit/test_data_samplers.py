"""lib/data/samplers.py: every picture in its place, on any number of ranks and after a restart."""

from collections import Counter

import pytest

from lib.data.samplers import EvalBatches, TrainBatches, epoch_order, sample_seed

NUM_IMAGES = (1, 2, 7, 16, 37, 41)
WORLD_SIZES = (1, 2, 3, 8)


def batches_of_ranks(
    num_images: int, batch_size: int, world_size: int, *, epoch: int = 0, start_step: int = 0
) -> list[list[list[tuple[int, int]]]]:
    """The batches that each rank gets."""
    ranks = []
    for rank in range(world_size):
        batches = TrainBatches(num_images, batch_size, seed=3, rank=rank, world_size=world_size)
        batches.epoch, batches.start_step = epoch, start_step
        ranks.append(list(batches))
    return ranks


@pytest.mark.parametrize("num_images", NUM_IMAGES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_evaluation_shards_hold_every_picture_exactly_once(
    num_images: int, world_size: int
) -> None:
    """Pitfall 18: also where the world size doesn't divide the number of pictures."""
    seen: list[int] = []
    num_steps = []
    for rank in range(world_size):
        batches = EvalBatches(num_images, 4, rank=rank, world_size=world_size)
        shard = [index for batch in batches for index, _ in batch]
        assert shard == sorted(shard)
        assert list(batches) == list(batches)
        assert len(list(batches)) == len(batches)
        num_steps.append(len(batches))
        seen += shard
    assert sorted(seen) == list(range(num_images))
    assert batches.num_common_steps == min(num_steps)


@pytest.mark.parametrize("num_images", NUM_IMAGES)
@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_training_ranks_have_equal_steps_and_miss_no_picture(
    num_images: int, world_size: int
) -> None:
    ranks = batches_of_ranks(num_images, 3, world_size)
    sizes = {tuple(len(batch) for batch in batches) for batches in ranks}
    assert len(sizes) == 1
    assert len(ranks[0]) == len(TrainBatches(num_images, 3, world_size=world_size))
    seen = Counter(index for batches in ranks for batch in batches for index, _ in batch)
    assert set(seen) == set(range(num_images))
    assert 0 <= seen.total() - num_images < world_size


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_together_take_what_one_process_with_the_whole_batch_takes(world_size: int) -> None:
    num_images = 5 * 2 * world_size
    ranks = batches_of_ranks(num_images, 2, world_size, epoch=4)
    [alone] = batches_of_ranks(num_images, 2 * world_size, 1, epoch=4)
    for step, batch in enumerate(alone):
        together = [key for batches in ranks for key in batches[step]]
        assert sorted(together) == sorted(batch)


@pytest.mark.parametrize("num_steps", [1, 5, 10, 11])
@pytest.mark.parametrize("last", [1, 4], ids=["short last batch", "full last batch"])
def test_short_epochs_have_the_right_number_of_batches(num_steps: int, last: int) -> None:
    """Pitfall 19."""
    num_images = 4 * (num_steps - 1) + last
    for batches in (TrainBatches(num_images, 4), EvalBatches(num_images, 4)):
        sizes = [len(batch) for batch in batches]
        assert sizes == [4] * (num_steps - 1) + [last]
        assert len(batches) == num_steps


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_restart_inside_an_epoch_goes_on_with_the_next_batch(world_size: int) -> None:
    """Pitfall 13: the tail of the epoch, bit for bit, on every rank."""
    whole = batches_of_ranks(41, 3, world_size, epoch=2)
    for start_step in range(len(whole[0]) + 1):
        rest = batches_of_ranks(41, 3, world_size, epoch=2, start_step=start_step)
        assert rest == [batches[start_step:] for batches in whole]


def test_the_length_is_that_of_a_whole_epoch_wherever_it_begins() -> None:
    batches = TrainBatches(10, 3)
    batches.start_step = 2
    assert len(batches) == 4 and len(list(batches)) == 2


@pytest.mark.parametrize("start_step", [-1, 5])
def test_a_start_outside_the_epoch_is_refused(start_step: int) -> None:
    batches = TrainBatches(10, 3)
    batches.start_step = start_step
    with pytest.raises(ValueError, match=rf"start step {start_step} is outside .* 0\.\.4"):
        next(iter(batches))


def test_each_epoch_and_each_run_seed_has_its_own_order_and_can_be_had_again() -> None:
    orders = {
        tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)
    }
    assert len(orders) == 16
    assert epoch_order(50, 1, 2).tolist() == epoch_order(50, 1, 2).tolist()
    assert sorted(epoch_order(50, 1, 2).tolist()) == list(range(50))


def test_no_two_pictures_epochs_or_runs_share_a_seed() -> None:
    seeds = {
        sample_seed(run, epoch, index)
        for run in (0, 1, 2**32)
        for epoch in (0, 1, 2)
        for index in (0, 1, 2**31)
    }
    assert len(seeds) == 27


def test_an_epoch_in_progress_keeps_its_order_when_the_next_one_is_set() -> None:
    batches = TrainBatches(12, 3, seed=1)
    whole = list(batches)
    begun = iter(batches)
    first = next(begun)
    batches.epoch = 1
    assert [first, *begun] == whole
    assert list(batches) != whole


@pytest.mark.parametrize(
    ("num_images", "batch_size", "world_size", "sizes"),
    [
        (481, 32, 1, [32] * 14 + [16, 17]),  # 1 left
        (487, 32, 1, [32] * 14 + [16, 23]),  # 7
        (488, 32, 1, [32] * 15 + [8]),  # a quarter: a step of its own
        (33, 32, 1, [16, 17]),
        (31, 32, 1, [31]),  # fewer than a batch
        (480, 32, 1, [32] * 15),
        (321, 16, 2, [16] * 9 + [8, 9]),  # 161 a rank: one picture comes twice
        (14, 13, 1, [7, 7]),
    ],
)
def test_what_is_left_of_an_epoch_is_no_full_step_of_a_few_pictures(
    num_images: int, batch_size: int, world_size: int, sizes: list[int]
) -> None:
    """Fault S16: fewer than a quarter of a batch share the last two steps with the batch before."""
    ranks = batches_of_ranks(num_images, batch_size, world_size)
    for batches in ranks:
        assert [len(batch) for batch in batches] == sizes
        for start in (len(sizes) - 1, len(sizes)):  # a resume before and after the last step
            rest = batches_of_ranks(num_images, batch_size, world_size, start_step=start)
            assert batches[start:] in rest
    batches = TrainBatches(num_images, batch_size, world_size=world_size)
    assert batches.last_batch_sizes == ((0, *sizes)[-2], sizes[-1])
    assert len(batches) == len(sizes)
    together = sorted(key for batches in ranks for batch in batches for key in batch)
    assert {index for index, _ in together} == set(range(num_images))
    if world_size == 2:  # what one process with the whole batch takes, at each step
        [alone] = batches_of_ranks(320 + 2, 32, 1)
        pairs = batches_of_ranks(320 + 2, 16, 2)
        for step, batch in enumerate(alone):
            assert sorted(key for rank in pairs for key in rank[step]) == sorted(batch)
