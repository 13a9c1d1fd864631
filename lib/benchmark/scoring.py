"""Scoring a folder of predictions against a plain loop over files, lines and values."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lib.benchmark.rounds import Row, compare
from lib.data.label_file import write_labels
from lib.offline.scores import read_labels, score_folder

GOAL_TEXT = 8.0
_NUM_VALUES = 1000
_PLACES = (1, 5)
_DIFFERENT_LINES = 500  # made once and used again: making text is slow

_WATCH = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measure(scratch: Path, repository: Path, *, num_predictions: int, rounds: int) -> list[Row]:
    """Make the predictions and compare; BIN stands beside this side's own TXT.

    Raises ValueError where the two sides count differently.
    """
    labels = scratch / "val_label.txt"
    text, binary = scratch / "txt", scratch / "bin"
    _make(text, binary, labels, num_predictions)
    ours = score_folder(text, labels)
    counted = tuple(ours.num_hits(place) for place in _PLACES)
    if counted != _plain_score(text, read_labels(labels)):
        raise ValueError("the two ways of scoring count differently")
    of = f"{num_predictions} files of {_NUM_VALUES} values"
    score = partial(compare, "score", num_items=num_predictions, unit="files/s", rounds=rounds)
    return [
        score(
            f"TXT, {of}",
            ours=partial(score_folder, text, labels),
            peer=lambda: _plain_score(text, read_labels(labels)),
            goal=GOAL_TEXT,
            peer_name="plain loop over values",
            remark=f"largest process {_peak_mib(repository, text, labels, scratch):.0f} MiB",
        ),
        score(
            f"BIN, {of}",
            ours=partial(score_folder, binary, labels),
            peer=partial(score_folder, text, labels),
            peer_name="itself on TXT",
        ),
    ]


def _make(text: Path, binary: Path, labels: Path, num_predictions: int) -> None:
    """Write both forms of the predictions, a third of them right, and the labels."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((_DIFFERENT_LINES, _NUM_VALUES)).astype(np.float32)
    lines = [" ".join(f"{value:f}" for value in row.tolist()) + " \n" for row in values]
    names = [f"ILSVRC2012_val_{number:08d}" for number in range(1, num_predictions + 1)]
    for folder in (text, binary):
        folder.mkdir()
    for number, name in enumerate(names):
        row = number % _DIFFERENT_LINES
        (text / f"{name}_0.txt").write_text(lines[row])
        (binary / f"{name}_0.bin").write_bytes(values[row].tobytes())
    best = values.argmax(axis=1)
    classes = [
        int(best[number % _DIFFERENT_LINES] if number % 3 == 0 else number % _NUM_VALUES)
        for number in range(num_predictions)
    ]
    write_labels({f"{n}.JPEG": label for n, label in zip(names, classes, strict=True)}, labels)


def _plain_score(folder: Path, label_by_stem: Mapping[str, int]) -> tuple[int, ...]:
    """Score as the scripts of model zoos do: every value of every line in a Python loop."""
    num_right = [0] * len(_PLACES)
    for name in sorted(os.listdir(folder)):
        values: list[float] = []
        with open(folder / name, encoding="ascii") as file:
            for line in file:
                for word in line.split():
                    values.append(float(word))
        order = _sorted_places(values)
        label = label_by_stem[name.rsplit("_", 1)[0]]
        for index, place in enumerate(_PLACES):
            num_right[index] += label in order[:place]
    return tuple(num_right)


def _sorted_places(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=values.__getitem__, reverse=True)


def _peak_mib(repository: Path, predictions: Path, labels: Path, scratch: Path) -> float:
    """Run the script itself; return the most memory that it or one of its processes held."""
    script = repository / "imagenet_acc_eval.py"
    # Through a small process: a child's peak starts from the memory of the one that forks it.
    words = [script, predictions, labels, scratch, "result.json"]
    done = subprocess.run(
        [sys.executable, "-c", _WATCH, sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"{script}: {done.stderr.strip()}")
    return int(done.stdout) / 1024  # KiB on Linux
