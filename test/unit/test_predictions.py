"""lib/metrics/predictions.py: the shares of several ranks put together."""

from __future__ import annotations

import torch

from lib.metrics.predictions import PredictionRecorder, UnsoundPlaces, merged


def recorded(indices: list[int], logits: torch.Tensor) -> PredictionRecorder:
    recorder = PredictionRecorder()
    for begin in range(0, len(indices), 2):
        part = slice(begin, begin + 2)
        number = indices[part]
        sound = torch.ones(len(number), dtype=torch.bool)
        recorder.add(number, logits[number], torch.tensor(number) % 3, sound=sound)
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
        [0, 1, 2],
        torch.tensor([[9.0, 0, 0], [0, 0, 9.0], [0, 9.0, 0]]),
        torch.tensor([0, 1, 1]),
        sound=torch.ones(3, dtype=torch.bool),
    )
    whole = merged([recorder.read()])
    assert whole is not None
    assert whole.confusion(3).blocks(1).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_a_tie_for_the_first_place_is_no_right_answer() -> None:
    """Fault S7: the table and the accuracy are of one mind, whichever output comes first."""
    recorder = PredictionRecorder()
    logits = torch.tensor([[9.0, 9, 0], [9, 9, 0], [9, 0, 0]])
    recorder.add([0, 1, 2], logits, torch.tensor([0, 1, 0]), sound=torch.ones(3, dtype=torch.bool))
    whole = merged([recorder.read()])
    assert whole is not None
    assert whole.classes[:, :2].tolist() == [[1, 0], [0, 1], [0, 1]]
    assert (whole.classes[:, 0] == whole.targets).tolist() == [False, False, True]


def test_an_image_whose_outputs_are_not_finite_has_no_class_and_counts_as_wrong() -> None:
    """Fault S8: what stands in its outputs is no prediction, in the tables as in the figures."""
    logits = torch.tensor([[9.0, 0.0], [float("nan"), 9.0], [0.0, 9.0]])
    sound, targets = torch.tensor([True, False, True]), torch.tensor([0, 1, 1])
    recorder, places = PredictionRecorder(), UnsoundPlaces()
    recorder.add([7, 8, 9], logits, targets, sound=sound)
    places.add([7, 8, 9], sound)
    assert places.read() == [8]
    predictions = recorder.read()
    assert predictions is not None
    assert predictions.answers.tolist() == [0, -1, 1]
    assert predictions.probabilities[1].isnan().all()
    confusion = predictions.confusion(2)
    assert confusion.num_images.tolist() == [1, 2] and confusion.num_correct.tolist() == [1, 1]
    assert confusion.blocks(1).tolist() == [[1, 0], [0, 1]] and confusion.taken_for() == {}
