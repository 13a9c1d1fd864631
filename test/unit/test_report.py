"""lib/report: the page of a run, and the predictions that it is made of."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import browsing, find_browser
from conftest import REPO, write_pictures
from report_samples import (
    HOSTILE,
    Seen,
    epoch_record,
    interval_record,
    predicted,
    whole_run,
    write_run,
)

from lib.data import ImageList, read_val
from lib.evaluation import per_class_rows
from lib.packing import PackOptions, pack
from lib.plots.points import curves_of
from lib.predictions import Predictions
from lib.report import find_pictures, keep_predictions, read_predictions, read_run, write_report
from lib.report.charts import HEIGHT, WIDTH, charts_of
from lib.report.classes import ClassFigures
from lib.report.page import MAX_ROWS, render

NAMES = ("cat", "dog", "owl")


def page_of(folder: Path, pictures) -> Seen:
    return Seen(render(read_run(folder), pictures))


# The page


def test_a_page_says_what_the_run_has_done(tmp_path: Path) -> None:
    targets, answers = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 2]
    folder, pictures = whole_run(tmp_path, NAMES, targets=targets, answers=answers)
    (folder / "bad_images.tsv").write_text("data/x.jpg\tOSError: cut short\n")
    seen = page_of(folder, pictures)
    for said in (
        "hrnet_w18", "best, after 2 epochs", "51.00 %", "1 h 06 min", "2 of 6 images",
        "1 file could not be decoded", "OSError: cut short", "2.6.0", "LR_STEP", "Learning rate",
    ):  # fmt: skip
        assert said in seen.text, said
    assert {"h1", "h2", "main", "nav", "svg", "table"} <= seen.tags
    assert len(seen.ids) == len(set(seen.ids))


def test_whatever_a_name_holds_it_is_text(tmp_path: Path) -> None:
    count = len(HOSTILE)
    targets, answers = list(range(count)), [(i + 1) % count for i in range(count)]
    folder, pictures = whole_run(tmp_path, HOSTILE, targets=targets, answers=answers)
    (folder / "bad_images.tsv").write_bytes(b"<b>na\xffme</b>.jpg\t<i>reason\x1b[31m\n")
    (folder / "config.yaml").write_text("</code></pre><script>alert(2)</script>")
    named = folder.with_name("<script>alert(3)<script>")
    folder.rename(named)
    (named / "environment.json").write_text(json.dumps({"<script>": "</dl>"}))
    content = render(read_run(named), pictures)
    content.encode()  # a lone surrogate could not be
    seen = Seen(content)
    assert not {"script", "i"} & seen.tags
    assert not [name for name in seen.attributes if name.startswith("on")]
    assert [image for image in seen.images if not image["src"].startswith("data:image/")] == []
    for said in (HOSTILE[0], HOSTILE[1], HOSTILE[2], "a\\xffb", "evil\\u202egpj.exe", "na\\xffme"):
        assert said in seen.text, said
    assert "\u202e" not in content and "\x1b" not in content


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    folder, pictures = whole_run(tmp_path, NAMES, targets=[0, 1], answers=[1, 1])
    content = render(read_run(folder), pictures)
    assert "default-src 'none'" in content
    assert not {"script", "iframe", "object"} & Seen(content).tags
    assert "http" not in content.replace("http-equiv", "")


def test_the_surest_mistakes_come_first_with_their_pictures(tmp_path: Path) -> None:
    targets, answers = [0, 1, 2, 2], [1, 1, 1, 0]
    folder, pictures = whole_run(tmp_path, NAMES, targets=targets, answers=answers)
    seen = page_of(folder, pictures)
    alts = [image["alt"] for image in seen.images]
    assert alts == ["cat, taken for dog", "owl, taken for dog", "owl, taken for cat"]
    places = [seen.text.index(f"val/{number}.png") for number in (0, 2, 3)]
    assert places == sorted(places)
    assert "90.0 %" in seen.text
    assert "is owl (18.3 %)" in seen.text  # its second choice


def test_pictures_that_are_gone_broken_or_others_leave_a_page_that_says_so(tmp_path: Path) -> None:
    targets, answers = [0, 1, 2], [1, 2, 0]
    folder, pictures = whole_run(tmp_path, NAMES, targets=targets, answers=answers)
    (tmp_path / "data" / "val" / "0.png").unlink()
    (tmp_path / "data" / "val" / "1.png").write_bytes(b"no picture")
    seen = page_of(folder, pictures)
    assert len(seen.images) == 1
    assert "FileNotFoundError" in seen.text and "UnidentifiedImageError" in seen.text
    shuffled = ImageList(pictures.images.paths[::-1], targets, NAMES)
    seen = page_of(folder, type(pictures)(shuffled, pictures.data_path))
    assert seen.text.count("another picture has its place") == 2  # the middle one has stayed
    assert page_of(folder, None).text.count("the pictures were not there") == 3


def test_pictures_are_found_where_the_run_had_them_or_where_they_are_said_to_be(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    for number, name in enumerate(NAMES):
        write_pictures(data / "val" / name, 1, channel=number)
    images = read_val(data, val_set="val", class_names=NAMES, num_classes=3)
    folder = write_run(tmp_path / "run", NAMES, result={"best_epoch": 1})
    keep_predictions(
        predicted([0, 1, 2], [1, 2, 0], num_classes=3), folder / "predictions.npz",
        images=images, data_path=data, epoch=1,
    )  # fmt: skip
    run = read_run(folder)
    assert len(page_of(folder, find_pictures(run, None)).images) == 3
    data.rename(tmp_path / "moved")
    assert find_pictures(run, None) is None
    assert len(page_of(folder, find_pictures(run, tmp_path / "moved")).images) == 3
    with pytest.raises(FileNotFoundError, match="has no folder 'val'"):
        find_pictures(run, tmp_path)


def test_pictures_in_shards_are_shown(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for number, name in enumerate(NAMES):
            write_pictures(tmp_path / "data" / part / name, 2, channel=number)
    packed = tmp_path / "packed"
    pack(tmp_path / "data", packed, PackOptions(num_workers=1))
    images = read_val(packed, val_set="val", class_names=NAMES, num_classes=3)
    folder = write_run(tmp_path / "run", NAMES, result={"best_epoch": 1})
    keep_predictions(
        predicted([0, 0, 1, 1, 2, 2], [1] * 6, num_classes=3), folder / "predictions.npz",
        images=images, data_path=packed, epoch=1,
    )  # fmt: skip
    seen = page_of(folder, find_pictures(read_run(folder), None))
    assert len(seen.images) == 4
    assert "val/000000.tar/" in seen.text


@pytest.mark.parametrize(
    "records",
    [
        [],
        [interval_record(0, 1)],
        [epoch_record(0, val_loss=None, val_accuracy_top1=0.0)],
        [interval_record(0, 1, loss=None), epoch_record(0, train_loss=None)],
    ],
    ids=["nothing yet", "no epoch yet", "a NaN", "only NaN"],
)
def test_a_run_that_was_stopped_early_has_a_page(records, tmp_path: Path) -> None:
    seen = page_of(write_run(tmp_path / "run", NAMES, records=records), None)
    assert "The run has not come to its end" in seen.text
    assert "predictions are not here" in seen.text
    assert "The run has not recorded it" in seen.text


def test_predictions_of_other_weights_than_the_best_are_not_shown(tmp_path: Path) -> None:
    folder, pictures = whole_run(tmp_path, NAMES, targets=[0, 1], answers=[1, 1])
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "best_epoch": 0}))
    run = read_run(folder)
    assert run.kept is None and "is not of the best weights" in run.why_none_kept
    assert "is not of the best weights" in page_of(folder, pictures).text


def test_the_best_epoch_of_a_run_without_a_result_is_the_first_of_the_best(tmp_path: Path) -> None:
    records = [epoch_record(e, val_accuracy_top1=a) for e, a in enumerate((10.0, 30.0, 30.0))]
    assert read_run(write_run(tmp_path / "run", NAMES, records=records)).best_epoch == 1


@pytest.mark.parametrize(
    ("spoil", "error", "pattern"),
    [
        (lambda run: run.rename(run.with_name("x")), FileNotFoundError, "no such run folder"),
        (lambda run: (run / "classes.json").unlink(), FileNotFoundError, "has no classes.json"),
        (lambda run: (run / "result.json").write_text("{"), ValueError, "json is damaged"),
        (
            lambda run: (run / "result.json").write_text("[]"),
            ValueError,
            "result.json: it is .., and a mapping is needed",
        ),
        (
            lambda run: (run / "result.json").write_text('{"kind": "performance"}'),
            ValueError,
            "nothing to report",
        ),
        (
            lambda run: (run / "classes.json").write_text('{"a": 0}'),
            ValueError,
            r"classes\.json has 1 class names, and predictions\.npz beside it is of 3 classes",
        ),
        (
            lambda run: (run / "classes.json").write_text('{"a": 1, "b": 0, "c": '),
            ValueError,
            r"classes\.json is no list of class names",
        ),
    ],
    ids=[
        "no folder",
        "no classes",
        "half a file",
        "another file",
        "performance",
        "few classes",
        "half a file of classes",
    ],  # fmt: skip
)
def test_what_is_no_run_folder_is_told_in_one_line(spoil, error, pattern, tmp_path: Path) -> None:
    folder, _ = whole_run(tmp_path, NAMES, targets=[0, 1], answers=[1, 1])
    spoil(folder)
    with pytest.raises(error, match=pattern) as raised:
        read_run(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda content: content[:2],
        lambda content: content[:-40],
        lambda content: content[:60] + bytes(40) + content[100:],  # zlib's own error
        lambda content: content.replace(b"epoch.npy", b"Epoch.npy"),
    ],
    ids=["two bytes", "cut short", "other bytes", "an array less"],
)
def test_damaged_predictions_are_as_if_they_were_not_there(spoiled, tmp_path: Path) -> None:
    folder, pictures = whole_run(tmp_path, NAMES, targets=[0, 1], answers=[1, 1])
    path = folder / "predictions.npz"
    path.write_bytes(spoiled(path.read_bytes()))
    run = read_run(folder)
    assert run.kept is None
    assert f"{path} is damaged" in run.why_none_kept and "\n" not in run.why_none_kept
    assert "is damaged" in page_of(folder, pictures).text


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("targets", np.array([0])),
        ("targets", np.array([0, -1])),
        ("targets", np.array([[0, 1]])),
        ("targets", np.array(["a", "b"])),
        ("classes", np.zeros((2, 0), np.int32)),
        ("classes", np.array([1, 1])),
        ("probabilities", np.array([[1, 0], [1, 0]])),
        ("ends", np.array([9, 5])),
        ("ends", np.array([1, 10**9])),
        ("epoch", np.array([1, 2])),
        ("epoch", np.array(1.5)),
    ],
)
def test_predictions_of_another_form_are_as_if_they_were_not_there(
    tmp_path: Path, name: str, array: np.ndarray
) -> None:
    """Fault R6."""
    folder, pictures = whole_run(tmp_path, NAMES, targets=[0, 1], answers=[1, 1])
    with np.load(folder / "predictions.npz") as arrays:
        arrays = {**arrays, name: array}
    np.savez(folder / "predictions.npz", **arrays)
    run = read_run(folder)
    assert run.kept is None and "predictions.npz is damaged" in run.why_none_kept
    page_of(folder, pictures)


def test_lines_of_another_form_are_left_out_and_told(tmp_path: Path) -> None:
    """Fault L5, R6."""
    folder, pictures = whole_run(tmp_path, NAMES, targets=[0, 1], answers=[1, 1])
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('5\nnull\n[]\n{}\n{"kind": "epoch"}\n{"kind": "epoch", "epoch": "1"}\n')
        file.write('{"kind": "interval", "epoch": 0, "step": 1, "num_steps": 0}\n{"kind": "epo')
    (folder / "bad_images.tsv").write_text("a.jpg\tcut\nb.jp")
    run = read_run(folder)
    assert len(run.records) == 4 and len(run.left_out) == 9
    assert "metrics.jsonl line 5: it is 5, and a mapping with kind 'interval' or" in run.left_out[0]
    assert run.left_out[-1].endswith("bad_images.tsv line 2: it has no tab")
    page_of(folder, pictures)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", '{"best_epoch": "1"}'),
        ("result.json", '{"duration_s": true}'),
        ("result.json", '{"duration_s": 1e999}'),
        ("environment.json", '{"device": ["cpu"]}'),
        ("environment.json", "[" * 100_000),
        ("classes.json", "[" * 100_000),
    ],
)
def test_files_of_another_form_are_told_in_one_line(
    tmp_path: Path, name: str, content: str
) -> None:
    """Fault R6."""
    folder, _ = whole_run(tmp_path, NAMES, targets=[0, 1], answers=[1, 1])
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=name) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


# Predictions


def test_predictions_and_paths_come_back_as_they_were(tmp_path: Path) -> None:
    names = ["a/b c.png", os.fsdecode(b"na\xffme.png"), "丁.png"]
    images = ImageList(tuple(f"/data/val/{name}" for name in names), (0, 1, 2), NAMES)
    whole = predicted([0, 1, 2], [1, 1, 2], num_classes=3)
    part = Predictions(
        *(getattr(whole, n)[1:] for n in ("indices", "targets", "classes", "probabilities"))
    )
    path = tmp_path / "predictions.npz"
    keep_predictions(part, path, images=images, data_path=Path("/data"), epoch=7)
    kept = read_predictions(path)
    assert kept.paths == (f"val/{names[1]}", f"val/{names[2]}")
    assert (kept.epoch, kept.data_path) == (7, "/data")
    for name in ("indices", "targets", "classes", "probabilities"):
        assert torch.equal(getattr(kept.predictions, name), getattr(part, name)), name
    with pytest.raises(FileNotFoundError, match="no such file of predictions"):
        read_predictions(tmp_path / "other.npz")


# Classes


def random_figures(num_classes: int, num_images: int) -> tuple[Predictions, ClassFigures]:
    generator = np.random.default_rng(0)
    targets, answers = generator.integers(0, num_classes, (2, num_images)).tolist()
    made = predicted(targets, answers, num_classes=num_classes)
    return made, ClassFigures(made, [str(number) for number in range(num_classes)])


def test_class_figures_are_those_of_the_whole_matrix() -> None:
    made, figures = random_figures(7, 500)
    expected = per_class_rows(made.confusion(7), [str(number) for number in range(7)])
    rows = figures.rows()
    ours = {(r.name, r.num_images, r.num_correct, r.confused_with) for r in rows}
    assert ours == {(name, images, correct, worst) for name, images, correct, _, worst in expected}
    assert [row.percent for row in rows] == sorted(row.percent for row in rows)
    cells = [[cell.count for cell in row] for row in figures.matrix().rows]
    assert cells == made.confusion(7).blocks(1).tolist()
    pairs = Counter(zip(made.targets.tolist(), made.classes[:, 0].tolist(), strict=True))
    largest = max(count for (true, answer), count in pairs.items() if true != answer)
    assert figures.confusions()[0].num_images == largest


@pytest.mark.parametrize(("num_classes", "block"), [(61, 1), (1000, 10), (50_000, 500)])
def test_many_classes_become_an_image_of_blocks(num_classes: int, block: int, tmp_path) -> None:
    """A matrix of all pairs of 50,000 classes would not fit in memory."""
    _, figures = random_figures(num_classes, 3000)
    matrix = figures.matrix()
    assert matrix.block == block and not matrix.rows
    assert matrix.image.startswith("data:image/png;base64,")
    assert len(figures.confusions()) == 20


def test_a_page_of_many_classes_lists_the_first_of_them(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1200)]
    order = list(range(1200))
    folder, _ = whole_run(tmp_path, names, targets=order, answers=order)
    seen = page_of(folder, None)
    assert f"the first {MAX_ROWS:,} of 1,200 classes" in seen.text
    assert "Every image was classified right" in seen.text


# Charts


def drawn(records) -> dict:
    return {chart.title: chart for chart in charts_of(curves_of(records))}


def test_lines_stay_within_their_axes() -> None:
    records = [
        record
        for epoch in range(3)
        for record in (
            interval_record(epoch, 1, loss=2.0 - epoch / 2), epoch_record(epoch, val_loss=1.0)
        )
    ]  # fmt: skip
    charts = drawn(records)
    assert list(charts) == ["Loss", "Accuracy (%)", "Learning rate"]
    for chart in charts.values():
        for line in chart.lines:
            for point in line.points.split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= WIDTH and 0 <= y <= HEIGHT
        assert all(0 <= place <= HEIGHT for place, _ in chart.y_ticks)
        assert 2 <= len(chart.y_ticks) <= 7
    assert charts["Learning rate"].note == "log scale"
    assert [label for _, label in charts["Learning rate"].y_ticks] == ["0.001", "0.01", "0.1"]
    assert "validation goes from 1 to 1" in charts["Loss"].summary


def test_a_huge_loss_is_cut_off_and_counted() -> None:
    losses = [1e6, 1.0, 0.9, 0.8]
    chart = drawn([epoch_record(epoch, val_loss=loss) for epoch, loss in enumerate(losses)])["Loss"]
    assert chart.note.startswith("1 point above")
    assert max(float(label) for _, label in chart.y_ticks) < 10


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_rate_that_never_changes_is_drawn(rate: float) -> None:
    records = [interval_record(0, step, learning_rate=rate) for step in range(2)]
    ticks = drawn(records)["Learning rate"].y_ticks
    assert len(ticks) >= 2 and all(0 <= place <= HEIGHT for place, _ in ticks)


def test_a_long_run_draws_no_more_points_than_can_be_seen() -> None:
    records = [
        {**interval_record(0, step, loss=1.0 + step % 7), "num_steps": 50_000}
        for step in range(0, 50_000, 5)
    ]
    (line,) = drawn(records)["Loss"].lines
    assert 300 < len(line.points.split()) <= 800


# A browser


def test_a_browser_shows_the_page_whole_on_a_phone_and_without_complaints(tmp_path: Path) -> None:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed")
    names = (*HOSTILE, "x" * 300, "a class of several words, as ImageNet has them", "c", "d")
    targets = [number % 10 for number in range(40)]
    answers = [number % 7 for number in range(40)]
    folder, pictures = whole_run(tmp_path, names, targets=targets, answers=answers)
    long_name = f"data/{'y' * 200}.jpg\tOSError: {'z' * 180}\n"
    (folder / "bad_images.tsv").write_text(long_name)
    report = write_report(read_run(folder), pictures)
    with browsing(program, tmp_path / "profile") as page:
        for width, dark in ((390, False), (390, True), (1280, False), (1280, True)):
            page.open(report, width=width, dark=dark)
            is_wide = page.value("document.documentElement.scrollWidth > window.innerWidth")
            assert page.value("window.innerWidth") == width and not is_wide
        assert page.value("document.title") == "run – training report"
        assert page.value("[...document.images].every(i => i.naturalWidth > 0)")
        assert page.value("document.images.length") == page.value(
            "document.querySelectorAll('.mistakes li').length"
        )
        assert page.value("document.querySelector('.chart .line').getBBox().width > 50")
        assert page.value("document.scripts.length") == 0
        background = page.value("getComputedStyle(document.body).backgroundColor")
        page.open(report, width=1280)
        assert page.value("getComputedStyle(document.body).backgroundColor") != background
        page.open(report, width=800, media="print")
        assert page.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []


def test_the_browser_of_the_tests_hears_a_page_complain(tmp_path: Path) -> None:
    """Else the test before could not fail."""
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium or Chrome is installed")
    bad = tmp_path / "bad.html"
    wide = "<div style='width:900px'>x</div><img src='http://127.0.0.1:9/x.png'>"
    bad.write_text(f"<meta name=viewport content='width=device-width'>{wide}<script>x.y()</script>")
    with browsing(program, tmp_path / "profile") as page:
        page.open(bad, width=390)
        assert page.value("document.documentElement.scrollWidth") > 390
    assert any("x is not defined" in complaint for complaint in page.complaints)
    assert "http://127.0.0.1:9/x.png" in page.requests


def test_the_template_lies_beside_the_code() -> None:
    folder = REPO / "lib" / "report"
    assert {path.name for path in folder.iterdir()} >= {"template.html", "style.css"}
