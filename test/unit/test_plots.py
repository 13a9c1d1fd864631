"""Curves and confusion matrices as PNG files."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lib.confusion import ConfusionCounts
from lib.plots import Tile, save_confusion, save_curves, save_sheet, text

pytestmark = pytest.mark.filterwarnings("error::UserWarning", "error::RuntimeWarning")


def interval(epoch, step, **changes):
    """A line of metrics.jsonl after a log interval."""
    record = {"kind": "interval", "epoch": epoch, "step": step, "num_steps": 2}
    return {**record, "loss": 1.0 / (1 + epoch + step), "learning_rate": 0.1, **changes}


def epoch_line(epoch, **changes):
    """A line of metrics.jsonl after an epoch."""
    record = {"kind": "epoch", "epoch": epoch, "train_loss": 1.0, "val_loss": 0.9}
    accuracies = {
        "train_accuracy_top1": 50.0, "val_accuracy_top1": 40.0, "val_accuracy_top5": 90.0,
    }  # fmt: skip
    return {**record, **accuracies, **changes}


def pixels(path):
    """The decoded picture; a PNG that is cut short would not decode."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("L"))


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    """A machine without a screen."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLBACKEND", "TkAgg")


@pytest.fixture
def figures(monkeypatch):
    """The figures written during a test, to be asked what they show."""
    written, savefig = [], Figure.savefig

    def keep(figure, *args, **kwargs):
        written.append(figure)
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return written


def curves(records, figures, folder):
    """The loss, accuracy and learning rate axes drawn of `records`."""
    save_curves(records, folder / "curves.png")
    return figures[-1].axes


def line(axes, label):
    """[[x, y], ...] of the line with that label."""
    (found,) = [drawn for drawn in axes.get_lines() if drawn.get_label().startswith(label)]
    return found.get_xydata().tolist()


def suptitle(figure):
    """The title over all axes."""
    (title,) = figure.texts
    return title.get_text()


def class_labels(figure):
    """The names beside the rows of a matrix."""
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def draw(matrix: Sequence[Sequence[int]] | np.ndarray, names: list[str], path: Path) -> None:
    """Draw image counts [true class][predicted class]."""
    counts = np.asarray(matrix)
    pairs = np.repeat(np.argwhere(counts), counts[counts > 0], axis=0)
    save_confusion(ConfusionCounts(*pairs.T, len(counts)), names, path)


def test_curves_are_drawn_and_drawn_over(tmp_path):
    path = tmp_path / "curves.png"
    save_curves([interval(0, 0), interval(0, 1), epoch_line(0)], path)
    first = pixels(path)
    save_curves([interval(0, 0), interval(0, 1), epoch_line(0), interval(1, 0)], path)
    second = pixels(path)
    assert first.shape == second.shape
    assert (first != second).any()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "records",
    [
        [],
        [interval(0, 0)],
        [interval(0, 0, loss=None), epoch_line(0, val_loss=None, train_loss=None)],
        [interval(0, 0), epoch_line(0, val_loss=None), epoch_line(1)],
    ],
    ids=["no records", "no epoch yet", "only NaN", "a NaN among numbers"],
)
def test_curves_of_any_run_can_be_drawn(records, tmp_path):
    """Pitfall 19: the shortest runs too, and those that a NaN ended."""
    save_curves(records, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 0


def test_a_matrix_is_drawn_with_its_class_names(tmp_path):
    matrix = [[8, 2, 0], [0, 10, 0], [0, 0, 0]]
    draw(matrix, ["cat", "dog", "class without pictures"], tmp_path / "named.png")
    draw(matrix, ["", "", ""], tmp_path / "unnamed.png")
    named, unnamed = pixels(tmp_path / "named.png"), pixels(tmp_path / "unnamed.png")
    assert named.shape != unnamed.shape or (named != unnamed).any()


def test_nulls_are_skipped_and_means_stand_in_the_middle_of_what_they_are_of(figures, tmp_path):
    records = [
        interval(0, 0, loss=4.0),
        interval(0, 1, loss=None),
        epoch_line(0, val_loss=None),
        interval(1, 1, loss=2.0),
        epoch_line(1, val_loss=3.0),
    ]
    loss, accuracy, _ = curves(records, figures, tmp_path)
    assert line(loss, "train, mean of each") == [[0.25, 4.0], [1.5, 2.0]]
    assert line(loss, "train, mean of the epoch") == [[0.5, 1.0], [1.5, 1.0]]
    assert line(loss, "validation") == [[2.0, 3.0]]
    assert line(accuracy, "validation top-5") == [[1.0, 90.0], [2.0, 90.0]]


@pytest.mark.parametrize("losses", [[1.0, 1e6, 0.8, 0.7], [1e6, 0.9], [0.9, 1e6], [1e6]])
def test_a_huge_validation_loss_leaves_the_others_visible(losses, figures, tmp_path):
    records = [epoch_line(epoch, val_loss=value) for epoch, value in enumerate(losses)]
    loss, _, _ = curves(records, figures, tmp_path)
    bottom, top = loss.get_ylim()
    assert bottom < min(1.0, *losses) and 1.0 < top <= 10
    assert "1 point above" in loss.get_title()


def test_a_loss_that_falls_far_is_shown_whole(figures, tmp_path):
    records = [
        record
        for epoch in range(30)
        for record in (
            interval(epoch, 1, loss=6.9 * 0.7**epoch),
            epoch_line(epoch, train_loss=6.9 * 0.7**epoch, val_loss=7 * 0.7**epoch),
        )
    ]
    loss, _, _ = curves(records, figures, tmp_path)
    assert loss.get_title() == "loss"
    assert loss.get_ylim()[1] > 7


@pytest.mark.parametrize(
    "rates, scale",
    [
        ([0.1, 0.01, 0.001], "log"),
        ([0.1, 0.1, 0.1], "log"),
        ([0.03, 0.04, 0.04], "log"),
        ([0.0, 0.1, 1e-7], "symlog"),
        ([0.1, None, 0.0], "symlog"),
        ([0.0, 0.0, 0.0], "linear"),
        ([None, None, None], "linear"),
    ],
)
def test_learning_rates_are_drawn_by_their_magnitude(rates, scale, figures, tmp_path):
    records = [interval(epoch, 1, learning_rate=rate) for epoch, rate in enumerate(rates)]
    axes = curves(records, figures, tmp_path)[2]
    assert axes.get_yscale() == scale
    bottom, top = axes.get_ylim()
    assert all(bottom <= rate <= top for rate in rates if rate is not None)
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert any(texts) and not any("$" in text for text in texts)


@pytest.mark.parametrize("uses_tex", [False, True])
def test_no_class_name_is_read_as_a_formula(uses_tex, figures, tmp_path):
    names = [r"$\frac$", "$a_1$ and $", "100%_{^}", "tab\tand\nline"]
    with matplotlib.rc_context({"text.usetex": uses_tex}):
        draw(np.eye(4, dtype=int), names, tmp_path / "formulas.png")
    assert class_labels(figures[0]) == [*names[:3], "tab and line"]


def test_a_name_without_glyphs_gives_way_to_the_number_of_its_class(
    figures, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(text, "CJK_FONTS", ())
    names = ["ça", "丁香鱼", "", "\udcff", "\x07"]
    draw(np.eye(6, dtype=int), names, tmp_path / "numbers.png")
    assert class_labels(figures[0]) == ["ça", "#1", "#2", "#3", "#4", "#5"]
    assert not caplog.records


def test_a_font_that_has_the_missing_glyphs_is_used(figures, tmp_path, monkeypatch, caplog):
    """STIX, which comes with matplotlib, stands for a font of Chinese: it has the frown, U+2322."""
    monkeypatch.setattr(text, "CJK_FONTS", ("No Such Font", "STIXGeneral"))
    draw([[1, 0], [0, 1]], ["a \u2322", "丁"], tmp_path / "glyphs.png")
    assert class_labels(figures[0]) == ["a \u2322", "#1"]
    assert not caplog.records


def test_a_long_name_keeps_its_two_ends(figures, tmp_path):
    draw([[1, 0], [0, 1]], ["start" + "x" * 500 + "end", "b"], tmp_path / "long.png")
    shortened = class_labels(figures[0])[0]
    assert shortened.startswith("start") and shortened.endswith("end") and len(shortened) < 30
    assert max(pixels(tmp_path / "long.png").shape) < 1000


def test_the_title_and_the_cells_say_the_counts(figures, tmp_path):
    matrix = [[8, 2, 0], [0, 9, 1], [0, 0, 0]]
    draw(matrix, ["cat", "dog", "class without pictures"], tmp_path / "counts.png")
    assert suptitle(figures[0]) == "top-1 85.000 % of 20 images"
    cells = {text.get_position(): text.get_text() for text in figures[0].axes[0].texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (1, 1): "9", (2, 1): "1"}


def test_a_matrix_of_no_images_is_drawn(figures, tmp_path):
    draw([[0, 0], [0, 0]], ["a", "b"], tmp_path / "none.png")
    draw(np.zeros((61, 61), int), [], tmp_path / "none_of_many.png")
    assert set(map(suptitle, figures)) == {"0 images"}


def test_a_small_share_of_errors_can_be_seen(figures, tmp_path):
    draw([[99, 1], [0, 100]], ["a", "b"], tmp_path / "small.png")
    (image,) = figures[0].axes[0].get_images()
    assert image.norm(0.01) > 0.1


def test_sixty_classes_are_all_named(figures, tmp_path):
    names = [f"class {index}" for index in range(60)]
    draw(np.eye(60, dtype=int), names, tmp_path / "sixty.png")
    assert class_labels(figures[0]) == names
    assert max(pixels(tmp_path / "sixty.png").shape) < 2000


@pytest.mark.parametrize("num_classes", [61, 101, 1000])
def test_many_classes_are_summed_in_blocks_beside_their_confusions(num_classes, figures, tmp_path):
    matrix = 10 * np.eye(num_classes, dtype=int)
    matrix[3, 7], matrix[60, 2], matrix[7, 3] = 6, 5, 4
    names = [f"name {index} $" for index in range(num_classes)]
    draw(matrix, names, tmp_path / "many.png")
    left, right = [axes for axes in figures[0].axes if axes.get_title() or axes.get_images()]
    (image,) = left.get_images()
    assert image.get_array().shape[0] <= 100
    np.testing.assert_allclose(image.get_array().sum(axis=1), 1)
    assert [text.get_text() for text in right.get_yticklabels()] == [
        "name 3 $ → name 7 $",
        "name 60 $ → name 2 $",
        "name 7 $ → name 3 $",
    ]
    assert [bar.get_width() for bar in right.patches] == [6, 5, 4]
    assert max(pixels(tmp_path / "many.png").shape) < 2000


def tiles(count, **changes):
    """So many small pictures with a class each."""
    black = np.zeros((8, 8, 3), np.uint8)
    return [Tile(black, f"{i} $.png", f"class_{i}", 0.5, **changes) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_contact_sheet_has_a_tile_a_picture(count, figures, tmp_path):
    save_sheet(tiles(count), tmp_path / "sheet.png", num_all=60)
    titles = [axes.get_title(loc="left") for axes in figures[0].axes]
    assert [title for title in titles if title] == [
        f"class_{i}  50.0%\n{i} $.png" for i in range(count)
    ]
    assert suptitle(figures[0]) == f"{count} of 60 pictures"


def test_a_map_over_a_picture_hides_none_of_what_speaks_for_nothing(figures, tmp_path):
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3] = 1
    save_sheet(tiles(1, heat=heat), tmp_path / "sheet.png", num_all=1)
    _, over = figures[0].axes[0].get_images()
    opacity = over.get_alpha()
    assert opacity[2, 3] > 0.4 and np.count_nonzero(opacity) == 1


@pytest.mark.parametrize("scale", [1.2e-5, 1.2e-4, 1.0, 1.2e5])
def test_the_curves_numbers_are_inside_the_picture(scale, figures, tmp_path):
    records = [
        interval(0, 0, loss=scale, learning_rate=1e-7),
        epoch_line(0, train_loss=scale, val_loss=0.5 * scale),
        epoch_line(1, train_loss=0.3 * scale, val_loss=0.7 * scale),
    ]
    save_curves(records, tmp_path / "curves.png")
    (figure,) = figures
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert boxes[0].x1 <= boxes[1].x0 and boxes[1].x1 <= boxes[2].x0
