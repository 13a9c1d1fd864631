"""A run folder as training leaves it, made in a moment, and what is asked of a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

import torch
from conftest import write_pictures

from lib.config.load import load_config
from lib.data.image_list import ImageList
from lib.metrics.predictions import Predictions
from lib.metrics.predictions_file import save_predictions
from lib.report.mistakes import Pictures

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% include 'x' %}",
    "a\udcffb",
    "evil\u202egpj.exe",
    "]]></style></title>",
)


def epoch_record(epoch: int, **changes: object) -> dict[str, object]:
    """Return a line of metrics.jsonl that ends an epoch."""
    record = {
        "kind": "epoch", "epoch": epoch, "train_loss": 1.0, "train_accuracy_top1": 40.0,
        "images_per_s": 90.0, "val_loss": 0.9, "val_accuracy_top1": 50.0 + epoch,
        "val_accuracy_top5": 90.0, "learning_rate": 0.1,
    }  # fmt: skip
    return {**record, **changes}


def interval_record(epoch: int, step: int, **changes: object) -> dict[str, object]:
    """Return a line of metrics.jsonl after a log interval."""
    record = {"kind": "interval", "epoch": epoch, "step": step, "num_steps": 2}
    return {**record, "loss": 1.5, "learning_rate": 0.1 * 0.1**epoch, **changes}


def predicted(targets: Sequence[int], answers: Sequence[int], *, num_classes: int) -> Predictions:
    """Return predictions of which the first is the surest; the second choice is the next class."""
    shares = torch.linspace(0.9, 0.5, len(targets))
    best = torch.tensor(answers)
    classes = torch.stack((best, (best + 1) % num_classes), dim=1)
    return Predictions(
        torch.arange(len(targets)), torch.tensor(targets), classes,
        torch.stack((shares, (1 - shares) / 2), dim=1),
    )  # fmt: skip


def write_run(
    folder: Path,
    class_names: Sequence[str],
    *,
    records: Sequence[Mapping[str, object]] | None = None,
    result: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Write the text files of a run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    if records is None:
        records = [interval_record(0, 1), epoch_record(0), interval_record(1, 1), epoch_record(1)]
    files = {
        "classes.json": json.dumps({name: i for i, name in enumerate(class_names)}),
        "config.yaml": load_config().dump(),
        "metrics.jsonl": "".join(json.dumps(record) + "\n" for record in records),
    }
    if result is not None:
        files["result.json"] = json.dumps(result)
    if environment is not None:
        files["environment.json"] = json.dumps(environment)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def whole_run(
    root: Path, class_names: Sequence[str], *, targets: Sequence[int], answers: Sequence[int]
) -> tuple[Path, Pictures]:
    """Return a finished run's folder and the pictures it was validated with."""
    data = root / "data"
    write_pictures(data / "val", len(targets))
    paths = tuple(str(data / "val" / f"{number}.png") for number in range(len(targets)))
    images = ImageList(paths, tuple(targets), tuple(class_names))
    result = {
        "kind": "train", "network": "hrnet_w18", "config": "a recipe", "best_epoch": 1,
        "num_train_images": 1000, "num_images_expected": len(targets), "duration_s": 4000.0,
    }  # fmt: skip
    facts = {"device": "cpu", "torch": "2.6.0"}
    folder = write_run(root / "run", class_names, result=result, environment=facts)
    save_predictions(
        predicted(targets, answers, num_classes=len(class_names)),
        folder / "predictions.npz",
        images=images, data_path=data, epoch=1,
    )  # fmt: skip
    return folder, Pictures(images, data)


class Seen(HTMLParser):
    """What a page says and which elements and attributes it has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.images: list[Mapping[str, str | None]] = []
        self.ids: list[str | None] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value for name, value in attrs if name == "id"]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data
