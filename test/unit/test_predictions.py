"""lib/predictions.py: the shares of several ranks put together."""

from __future__ import annotations

import torch

from lib.predictions import PredictionRecorder, merged


def recorded(indices: list[int], logits: torch.Tensor) -> PredictionRecorder:
    recorder = PredictionRecorder()
    for begin in range(0, len(indices), 2):
        part = slice(begin, begin + 2)
        recorder.add(indices[part], logits[indices[part]], torch.tensor(indices[part]) % 3)
    return recorder


def test_ranks_that_took_every_other_image_give_what_one_rank_gives() -> None:
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    alone = merged([recorded(list(range(7)), logits).read()])
    shared = merged([recorded([0, 2, 4, 6], logits).read(), recorded([1, 3, 5], logits).read()])
    assert alone is not None and shared is not None
    for name in ("indices", "targets", "classes", "probabilities"):
        assert torch.equal(getattr(alone, name), getattr(shared, name)), name
    assert alone.classes.shape == (7, 3)  # all classes, where there are fewer than five
    torch.testing.assert_close(alone.probabilities.sum(dim=1), torch.ones(7))


def test_a_rank_without_images_adds_nothing() -> None:
    recorder = recorded([1, 0], torch.eye(4))
    whole = merged([None, recorder.read(), PredictionRecorder().read()])
    assert whole is not None
    assert whole.indices.tolist() == [0, 1]
    assert whole.classes[:, 0].tolist() == [0, 1]
    assert merged([None, None]) is None


def test_the_confusion_matrix_counts_true_by_predicted() -> None:
    recorder = PredictionRecorder()
    recorder.add(
        [0, 1, 2], torch.tensor([[9.0, 0, 0], [0, 0, 9.0], [0, 9.0, 0]]), torch.tensor([0, 1, 1])
    )
    whole = merged([recorder.read()])
    assert whole is not None
    assert whole.confusion(3).blocks(1).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_a_tie_for_the_first_place_is_no_right_answer() -> None:
    """Fault S7: the table and the accuracy are of one mind, whichever output comes first."""
    recorder = PredictionRecorder()
    logits = torch.tensor([[9.0, 9, 0], [9, 9, 0], [9, 0, 0]])
    recorder.add([0, 1, 2], logits, torch.tensor([0, 1, 0]))
    whole = merged([recorder.read()])
    assert whole is not None
    assert whole.classes[:, :2].tolist() == [[1, 0], [0, 1], [0, 1]]
    assert (whole.classes[:, 0] == whole.targets).tolist() == [False, False, True]
