"""lib/report: the page of a run, and the predictions that it is made of."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import browsing, find_browser
from conftest import REPO, write_pictures
from contrast import contrast
from report_samples import (
    HOSTILE,
    Seen,
    epoch_record,
    interval_record,
    predicted,
    whole_run,
    write_run,
)

from lib.config.load import load_config
from lib.data.build import read_val
from lib.data.image_list import ImageList
from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack
from lib.metrics.per_class import per_class_rows
from lib.metrics.predictions import Predictions
from lib.metrics.predictions_file import read_predictions, save_predictions
from lib.report.classes import ClassFigures, means_of
from lib.report.environment import environment_facts, git_commit
from lib.report.mistakes import find_pictures
from lib.report.page import MAX_ROWS, render, write_report
from lib.report.plots.confusion import confusion_svg
from lib.report.plots.curves import curve_charts
from lib.report.run_files import read_run
from lib.report.settings import settings_of

NAMES = ("cat", "dog", "owl")


_DRAWN: dict[str, object] = {}


@pytest.fixture(autouse=True)
def each_drawing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests have the same curves and matrices, which take most of a page's time."""

    def once(name: str, draw: Callable[..., object]) -> Callable[..., object]:
        def remembered(*given: object) -> object:
            key = name + repr([getattr(g, "__dict__", g) for g in given])
            if key not in _DRAWN:
                _DRAWN[key] = draw(*given)
            return _DRAWN[key]

        return remembered

    monkeypatch.setattr("lib.report.page.curve_charts", once("curves", curve_charts))
    monkeypatch.setattr("lib.report.classes.confusion_svg", once("matrix", confusion_svg))


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
        "1 file could not be decoded", "OSError: cut short", "2.6.0", "LR_STEP", "learning rate",
    ):  # fmt: skip
        assert said in seen.text, said
    assert {"h1", "h2", "main", "nav", "svg", "table"} <= seen.tags
    assert len(seen.ids) == len(set(seen.ids))


def test_the_network_is_named_though_the_run_has_not_ended(tmp_path: Path) -> None:
    """Fault V2: its published name, whichever way the yaml says it; none is better than a word."""
    folder = write_run(tmp_path / "run", NAMES)
    assert "hrnet_w18 \u00b7" in " ".join(page_of(folder, None).text.split())
    (folder / "config.yaml").write_text("no: yaml: of ours")
    said = " ".join(page_of(folder, None).text.split())
    assert "3 classes" in said and "network \u00b7" not in said


@pytest.mark.parametrize(("num_classes", "has_top5"), [(5, False), (6, True)])
def test_top_5_of_five_classes_is_left_out(
    num_classes: int, has_top5: bool, tmp_path: Path
) -> None:
    """Fault V2."""
    names = [f"c{number}" for number in range(num_classes)]
    assert ("top-5" in page_of(write_run(tmp_path / "run", names), None).text) is has_top5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "cross-entropy, on images cropped at random and mirrored, while the weights change"),
        (
            ["TRAIN.LABEL_SMOOTHING", "0.1", "AUG.MIXUP", "0.2", "AUG.CUTMIX", "1.0"],
            "cross-entropy with label smoothing 0.1, on images cropped at random, mirrored and "
            "mixed (mixup and cutmix)",
        ),
        (
            ["TRAIN.LOSS", "bce", "AUG.HFLIP", "0.0", "AUG.AUTO", "trivialaugment"],
            "binary cross-entropy, on images cropped at random and changed by trivialaugment",
        ),
        (["DISTILL.TEACHER", "x.pth"], "the distance from the teacher's answers, on images"),
    ],
)
def test_what_the_training_loss_is_of_is_said(
    settings: list[str], said: str, tmp_path: Path
) -> None:
    """Fault V2: it cannot be compared with the validation loss."""
    folder = write_run(tmp_path / "run", NAMES)
    (folder / "config.yaml").write_text(load_config(None, settings).dump())
    assert f"The training loss is {said}" in page_of(folder, None).text


def test_chance_and_the_largest_class_are_said(tmp_path: Path) -> None:
    """Fault V2."""
    folder, pictures = whole_run(tmp_path, NAMES, targets=[0, 1, 1, 2], answers=[0, 1, 0, 2])
    said = " ".join(page_of(folder, pictures).text.split())
    assert "best, after 2 epochs; by chance 33.33 %" in said
    assert "By chance 33.33 % would be right, and always answering dog, the largest" in said
    assert "the largest class, 50.00 %." in said
    assert "Means over the classes: recall 83.33 %, precision 83.33 %" in said


def test_the_rate_of_the_page_is_the_schedules(tmp_path: Path) -> None:
    """Fault S15: of every step, for the cards that the run had."""
    folder = write_run(tmp_path / "run", NAMES, environment={"cards": "2"})
    config = load_config(None, ["TRAIN.SCHEDULE", "cosine", "TRAIN.END_EPOCH", "2"])
    (folder / "config.yaml").write_text(config.dump())
    schedule = settings_of(read_run(folder)).schedule
    assert schedule is not None
    assert schedule.learning_rate(0) == pytest.approx(2 * config.TRAIN.LR)
    assert schedule.learning_rate(1) == pytest.approx(config.TRAIN.LR)


def test_a_path_may_break_behind_its_separators_alone(tmp_path: Path) -> None:
    """Fault V2: not within a word."""
    folder = write_run(tmp_path / "run", NAMES)
    (folder / "bad_images.tsv").write_text("data/my_dog/IMG-2023.jpg\tOSError: <cut>\n")
    page = render(read_run(folder), None)
    assert "data/<wbr>my_<wbr>dog/<wbr>IMG-<wbr>2023.<wbr>jpg" in page
    assert "OSError: &lt;cut&gt;" in page


def test_a_name_with_a_character_that_xml_lacks_is_drawn(tmp_path: Path) -> None:
    names = ("a\ufffeb\uffff", "$x_1$ <b>", "c\x00\x1b")
    folder, _ = whole_run(tmp_path, names, targets=[0, 1, 2], answers=[1, 1, 2])
    seen = page_of(folder, None)
    assert "a\ufffdb\ufffd" in seen.text and "$x_1$ <b>" in seen.text and "c\\x00\\x1b" in seen.text


def colours_of_the_page() -> list[dict[str, str]]:
    """The variables of the style sheet, in the light theme and in the dark one."""
    css = (REPO / "lib" / "report" / "style.css").read_text()
    found = [dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in css.split("@media")[:2]]
    return [found[0], found[0] | found[1]]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_can_be_read(theme: int) -> None:
    """Fault V2: a contrast of 4.5 : 1, as WCAG 2.1 asks for."""
    colours = colours_of_the_page()[theme]
    for ink, paper in [
        *(
            (ink, paper)
            for ink in ("ink", "soft", "link", "wrong")
            for paper in ("paper", "raised")
        ),
        ("warn", "warn-paper"),
        ("soft", "track"),
    ]:
        assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    assert contrast(colours["bar"], colours["track"]) >= 1.5


def test_the_environment_says_command_and_commit(tmp_path: Path) -> None:
    """Fault V2."""
    facts = environment_facts(
        torch.device("cpu"), num_cards=1, precision="fp32", command="python x.py"
    )
    assert facts["command"] == "python x.py"
    assert list(facts)[-1] == "command"
    folder = write_run(tmp_path / "run", NAMES, environment={**facts, "git commit": "0123abc"})
    seen = page_of(folder, None)
    assert "python x.py" in seen.text and "0123abc" in seen.text


def test_the_commit_is_that_of_the_checkout_itself(tmp_path: Path) -> None:
    """Fault V2: a checkout around it is of another project, and none has none."""
    program = shutil.which("git")
    if program is None:
        pytest.skip("git is not installed")
    root = tmp_path / "repo"

    def git(*words: str) -> str:
        user = ("-c", "user.name=x", "-c", "user.email=x@y.z", "-c", "commit.gpgsign=false")
        done = subprocess.run([program, "-C", str(root), *user, *words], capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    (root / "inner").mkdir(parents=True)
    assert git_commit(root) == ""
    git_commit.cache_clear()
    git("init", "-q")
    (root / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    head = git("rev-parse", "HEAD")
    assert git_commit(root) == head
    (root / "a").write_text("2")
    git_commit.cache_clear()
    assert git_commit(root) == f"{head} with changes"
    assert git_commit(root / "inner") == ""
    git_commit.cache_clear()


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
    save_predictions(
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
    save_predictions(
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
    save_predictions(part, path, images=images, data_path=Path("/data"), epoch=7)
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
    assert [row.recall for row in rows] == sorted(row.recall for row in rows)
    pairs = Counter(zip(made.targets.tolist(), made.classes[:, 0].tolist(), strict=True))
    largest = max(count for (true, answer), count in pairs.items() if true != answer)
    assert figures.confusions()[0].num_images == largest


def test_precision_recall_and_f1_are_what_a_hand_counts() -> None:
    """Fault V2. Of three cats two are found, and of four answers `cat` two are right."""
    made = predicted([0, 0, 0, 1, 1, 1, 2], [0, 0, 1, 0, 0, 1, 1], num_classes=3)
    rows = ClassFigures(made, NAMES).rows()
    by_name = {row.name: (row.recall, row.precision, row.f1) for row in rows}
    assert by_name["cat"] == pytest.approx((200 / 3, 50.0, 400 / 7))
    assert by_name["dog"] == pytest.approx((100 / 3, 100 / 3, 100 / 3))
    assert by_name["owl"] == (0.0, None, 0.0)
    means = means_of(rows)
    assert means is not None
    assert (means.recall, means.precision) == pytest.approx((100 / 3, (50 + 100 / 3) / 3))
    assert means.f1 == pytest.approx((400 / 7 + 100 / 3) / 3)
    assert means_of([]) is None


@pytest.mark.parametrize("num_classes", [61, 50_000])
def test_a_matrix_of_many_classes_is_small(num_classes: int) -> None:
    """A matrix of all pairs of 50,000 classes would not fit in memory."""
    _, figures = random_figures(num_classes, 3000)
    matrix = figures.matrix(str)
    assert matrix.count("data:image/png;base64,") == 2 and len(matrix) < 60_000
    assert len(figures.confusions()) == 20


def test_a_page_of_many_classes_lists_the_first_of_them(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(1200)]
    order = list(range(1200))
    folder, _ = whole_run(tmp_path, names, targets=order, answers=order)
    seen = page_of(folder, None)
    assert f"the first {MAX_ROWS:,} of 1,200 classes" in seen.text
    assert "Every image was classified right" in seen.text


# A browser

# Fault V2: the heads of columns whose text ends left of its cells' text, or begins right of it.
_HEADS_BESIDE = """
[...document.querySelectorAll('table')].flatMap(table => {
  const extent = cell => {
    const range = document.createRange(); range.selectNodeContents(cell);
    const box = range.getBoundingClientRect(); return [box.left, box.right, box.width];
  };
  const cells = table.tBodies[0].rows[0].cells;
  return [...table.tHead.rows[0].cells].filter((head, i) => {
    const [a, b, w] = extent(head), [c, d, v] = extent(cells[i]);
    return w && v && (b <= c || a >= d);
  }).map(head => head.textContent);
})
"""
_HINT = "getComputedStyle(document.querySelector('.hint')).display"


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
            assert page.value(_HEADS_BESIDE) == []
            assert page.value(_HINT) == ("block" if width == 390 else "none")
            ink = "getComputedStyle(document.{}).{}"
            assert page.value(ink.format("querySelector('.chart text')", "fill")) == page.value(
                ink.format("body", "color")
            )
        assert page.value("document.title") == "run – training report"
        assert page.value("[...document.images].every(i => i.naturalWidth > 0)")
        assert page.value("document.images.length") == page.value(
            "document.querySelectorAll('.mistakes li').length"
        )
        assert page.value("document.querySelector('.chart svg').getBBox().width > 50")
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
