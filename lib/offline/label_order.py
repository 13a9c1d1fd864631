"""Labels that are numbered otherwise than the network's outputs: found from the predictions.

A good network scored with shifted or permuted labels looks like an untrained one. But its answers
still go together with the labels, and that tells the two apart, and what would mend it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

# A mapping is worth a word where it scores so many percent points more, and twice as much.
_MIN_GAIN = 20.0
_MIN_RATIO = 2.0
# A general renumbering can imitate every simple one, so it has to be better than the best of them.
_MIN_GAIN_OVER_SIMPLE = 2.0
# Below this a score is poor where it is near chance's, and of fewer pictures nothing is learnt.
_DECENT = 50.0
_MIN_PICTURES_A_CLASS = 4
_NUM_SHOWN = 5


@dataclass(frozen=True)
class Mapping:
    """Another numbering of the labels, and the top-1 accuracy in percent that it gives."""

    advice: str  # a sentence's start: what to do
    accuracy: float


def better_label_order(
    labels: Indices, outputs: Indices, *, num_outputs: int, offset: int
) -> Mapping | None:
    """The numbering of the labels that scores much better than the present one, if any does.

    Tried are: labels one lower or higher (classes counted from 1; a background class in front, as
    in TensorFlow's 1001 outputs), numbers sorted as text (0, 1, 10, 100, ...), and any one-to-one
    renumbering, learnt on one half of the pictures and scored on the other.

    `outputs` are those with the highest score of each picture; `offset` is what is added to a label
    at present to get its output.
    """
    plain = _percent(labels + offset == outputs)
    candidates = [
        *_shifted(labels, outputs, offset=offset),
        *_sorted_as_text(labels, outputs, num_classes=num_outputs - offset, offset=offset),
    ]
    simple = max(candidates, key=lambda mapping: mapping.accuracy)
    best = _renumbered(labels, outputs, num_outputs=num_outputs, offset=offset)
    if best.accuracy < simple.accuracy + _MIN_GAIN_OVER_SIMPLE:
        best = simple
    much_better = best.accuracy >= max(plain + _MIN_GAIN, plain * _MIN_RATIO)
    return best if much_better else None


def could_not_tell(labels: Indices, outputs: Indices, *, num_outputs: int, offset: int) -> str:
    """Return what a poor score leaves open where no better order was found; '' for others.

    Of a few pictures a class nothing can be learnt of the labels' numbering.
    """
    plain, chance = _percent(labels + offset == outputs), 100.0 / num_outputs
    num_classes = len(np.unique(labels))
    few = len(labels) < _MIN_PICTURES_A_CLASS * num_classes
    most = max(_MIN_RATIO * chance, _MIN_GAIN) if few else _MIN_RATIO * chance
    if plain >= _DECENT or plain > most:
        return ""
    found = f"top-1 is {plain:.2f}%, where chance gives {chance:.2f}%, and"
    if not few:
        return (
            f"{found} no other numbering of the labels does much better: are these the pictures, "
            "and is this the preprocessing, of this network?"
        )
    return (
        f"{found} {len(labels)} pictures of {num_classes} classes are too few to tell whether the "
        "labels are numbered otherwise than the outputs: make the label file with "
        "tools/make_labels.py --classes, or score more pictures a class"
    )


def _percent(right: npt.NDArray[np.bool_]) -> float:
    return 100.0 * float(right.mean())


def _shifted(labels: Indices, outputs: Indices, *, offset: int) -> list[Mapping]:
    advice = {
        -1: "subtract 1 from every label (they count from 1, the network's outputs from 0)",
        0: "take the labels as they are (they count the background class already)",
        1: "add 1 to every label (the network's output 0 is a background class)",
    }
    return [
        Mapping(text, _percent(labels + shift == outputs))
        for shift, text in advice.items()
        if shift != offset
    ]


def _sorted_as_text(
    labels: Indices, outputs: Indices, *, num_classes: int, offset: int
) -> list[Mapping]:
    as_text = np.array(sorted(range(num_classes), key=str))
    place = np.argsort(as_text)
    known = (labels >= 0) & (labels < num_classes)
    inside = np.where(known, labels, 0)
    return [
        Mapping(
            f"renumber the labels: {whose} are numbered in the text order of their numbers "
            "(0, 1, 10, 100, ...)",
            _percent(known & (mapping[inside] + offset == outputs)),
        )
        for whose, mapping in (("the network's classes", place), ("the labels", as_text))
    ]


def _renumbered(labels: Indices, outputs: Indices, *, num_outputs: int, offset: int) -> Mapping:
    halves = _halves(labels)
    classes, places = np.unique(labels, return_inverse=True)  # any number may stand for a class
    shape = len(classes), num_outputs
    hits = 0
    for half in (halves, ~halves):
        learnt = _one_to_one(places[half], outputs[half], shape)
        hits += int((learnt[places[~half]] == outputs[~half]).sum())
    whole = zip(classes.tolist(), _one_to_one(places, outputs, shape).tolist(), strict=True)
    moved = [(label, new - offset) for label, new in whole if 0 <= new != label + offset]
    shown = ", ".join(f"{label} as {new}" for label, new in moved[:_NUM_SHOWN])
    return Mapping(
        f"renumber {len(moved)} classes ({shown}, ...): the labels were numbered in another order "
        "of the class folders than the network's, which is the sorted one",
        100.0 * hits / len(labels),
    )


def _halves(labels: Indices) -> npt.NDArray[np.bool_]:
    """Every second picture of each class."""
    order = np.argsort(labels, kind="stable")
    in_order = labels[order]
    firsts = np.searchsorted(in_order, in_order)  # where each picture's class begins
    chosen = np.empty(len(labels), bool)
    chosen[order] = (np.arange(len(labels)) - firsts) % 2 == 0
    return chosen


def _one_to_one(labels: Indices, outputs: Indices, shape: tuple[int, int]) -> Indices:
    """The output of each label that most of its pictures have, no output twice; -1 for none.

    Greedy, from the most frequent pair on. One-to-one, since otherwise a network that has only one
    answer for everything would seem to be right. `shape`: numbers of labels and of outputs.
    """
    num_labels, num_outputs = shape
    pairs, counts = np.unique(labels * num_outputs + outputs, return_counts=True)
    learnt = np.full(num_labels, -1, np.int64)
    taken = np.zeros(num_outputs, bool)
    for pair in pairs[np.argsort(-counts, kind="stable")]:
        label, output = divmod(int(pair), num_outputs)
        if learnt[label] < 0 and not taken[output]:
            learnt[label], taken[output] = output, True
    return learnt
