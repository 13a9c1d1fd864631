"""Curves and confusion matrices as PNG files."""

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from contrast import contrast
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from lib.config.schedules import ScheduleOptions, build_schedule
from lib.metrics.confusion import ConfusionCounts
from lib.report.plots import palette, text
from lib.report.plots.confusion import GAMMA, save_confusion
from lib.report.plots.curves import curve_charts, save_curves
from lib.report.plots.points import curves_of
from lib.report.plots.reliability import save_reliability, wilson_interval
from lib.report.plots.sheet import Heat, Tile, save_sheet
from lib.report.plots.svg import inline_svg

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
    """The figures of a test, to be asked what they show; they are not drawn, which takes longer."""
    written = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: written.append(figure))
    return written


@pytest.fixture
def drawn_figures(monkeypatch):
    """The figures written during a test."""
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


def titles(figure):
    """The titles of the charts."""
    return [title.get_text() for title in figure.texts]


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
    assert line(loss, "training, log") == [[0.25, 4.0], [1.5, 2.0]]
    assert line(loss, "training, epochs") == [[0.5, 1.0], [1.5, 1.0]]
    assert line(loss, "validation") == [[2.0, 3.0]]
    assert line(accuracy, "validation top-5") == [[1.0, 90.0], [2.0, 90.0]]


@pytest.mark.parametrize("losses", [[1.0, 1e6, 0.8, 0.7], [1e6, 0.9], [0.9, 1e6], [1e6]])
def test_a_huge_validation_loss_leaves_the_others_visible(losses, figures, tmp_path):
    records = [epoch_line(epoch, val_loss=value) for epoch, value in enumerate(losses)]
    loss, _, _ = curves(records, figures, tmp_path)
    bottom, top = loss.get_ylim()
    assert bottom < min(1.0, *losses) and 1.0 < top <= 10
    assert "1 point above" in titles(figures[-1])[0]


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
    assert titles(figures[-1])[0] == "loss"
    assert loss.get_ylim()[1] > 7


@pytest.mark.parametrize(
    "rates, scale",
    [
        ([0.1, 0.01, 0.001], "log"),
        ([0.1, 0.1, 0.1], "linear"),
        ([0.03, 0.04, 0.04], "linear"),
        ([0.0, 0.1, 1e-7], "log"),
        ([0.1, None, 0.0], "log"),
        ([0.0, 0.0, 0.0], "linear"),
        ([None, None, None], "linear"),
    ],
)
def test_learning_rates_far_apart_are_drawn_by_their_magnitude(rates, scale, figures, tmp_path):
    records = [interval(epoch, 1, learning_rate=rate) for epoch, rate in enumerate(rates)]
    axes = curves(records, figures, tmp_path)[2]
    assert axes.get_yscale() == scale
    bottom, top = axes.get_ylim()
    assert all(rate <= top and (bottom <= rate or rate == 0) for rate in rates if rate is not None)
    texts = [label.get_text() for label in axes.get_yticklabels()]
    assert any(texts) and not any("$" in text for text in texts)


@pytest.mark.parametrize("uses_tex", [False, True])
def test_no_class_name_is_read_as_a_formula(uses_tex, drawn_figures, tmp_path):
    names = [r"$\frac$", "$a_1$ and $", "100%_{^}", "tab\tand\nline"]
    with matplotlib.rc_context({"text.usetex": uses_tex}):
        draw(np.eye(4, dtype=int), names, tmp_path / "formulas.png")
    assert class_labels(drawn_figures[0]) == [*names[:3], "tab and line"]


def test_a_name_without_glyphs_gives_way_to_the_number_of_its_class(
    drawn_figures, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(text, "_other_fonts", lambda: ())
    names = ["ça", "丁香鱼", "", "\udcff", "\x07"]
    draw(np.eye(6, dtype=int), names, tmp_path / "numbers.png")
    assert class_labels(drawn_figures[0]) == ["ça", "#1", "#2", "#3", "#4", "#5"]
    assert not caplog.records


def test_a_font_that_has_the_missing_glyphs_is_used(drawn_figures, tmp_path, monkeypatch, caplog):
    """STIX, which comes with matplotlib, stands for a font of Chinese: it has the frown, U+2322."""
    # The list of fonts that matplotlib keeps in the home folder may lack it.
    font_manager.fontManager.addfont(f"{matplotlib.get_data_path()}/fonts/ttf/STIXGeneral.ttf")
    monkeypatch.setattr(text, "_other_fonts", lambda: ("No Such Font", "STIXGeneral"))
    draw([[1, 0], [0, 1]], ["a \u2322", "丁"], tmp_path / "glyphs.png")
    assert class_labels(drawn_figures[0]) == ["a \u2322", "#1"]
    assert not caplog.records


def test_a_long_name_keeps_its_two_ends(drawn_figures, tmp_path):
    draw([[1, 0], [0, 1]], ["start" + "x" * 500 + "end", "b"], tmp_path / "long.png")
    shortened = class_labels(drawn_figures[0])[0]
    assert shortened.startswith("start") and shortened.endswith("end") and len(shortened) < 40
    assert max(pixels(tmp_path / "long.png").shape) < 1000


def test_the_title_and_the_cells_say_the_counts(figures, tmp_path):
    matrix = [[8, 2, 0], [0, 9, 1], [0, 0, 0]]
    draw(matrix, ["cat", "dog", "class without pictures"], tmp_path / "counts.png")
    assert suptitle(figures[0]) == "top-1 85.00 % of 20 images"
    cells = {text.get_position(): text.get_text() for text in figures[0].axes[0].texts}
    assert cells == {(0, 0): "8", (1, 0): "2", (1, 1): "9", (2, 1): "1"}


def test_a_matrix_of_no_images_is_drawn(figures, tmp_path):
    draw([[0, 0], [0, 0]], ["a", "b"], tmp_path / "none.png")
    draw(np.zeros((61, 61), int), [], tmp_path / "none_of_many.png")
    assert set(map(suptitle, figures)) == {"0 images"}


def cells_of(axes):
    """The colours of a matrix, H x W x 4."""
    (image,) = axes.get_images()
    return np.asarray(image.get_array())


def test_a_small_share_of_errors_can_be_seen(figures, tmp_path):
    draw([[99, 1], [0, 100]], ["a", "b"], tmp_path / "small.png")
    cells = cells_of(figures[0].axes[0])
    assert cells[0, 1, 3] > 0.1 and cells[1, 0, 3] == 0


def test_sixty_classes_are_all_named(drawn_figures, tmp_path):
    names = [f"class {index}" for index in range(60)]
    draw(np.eye(60, dtype=int), names, tmp_path / "sixty.png")
    assert class_labels(drawn_figures[0]) == names
    assert max(pixels(tmp_path / "sixty.png").shape) < 2000


@pytest.mark.parametrize("num_classes", [61, 101, 1000])
def test_many_classes_are_summed_in_blocks_beside_their_confusions(
    num_classes, drawn_figures, tmp_path
):
    matrix = 10 * np.eye(num_classes, dtype=int)
    matrix[3, 7], matrix[60, 2], matrix[7, 3] = 6, 5, 4
    names = [f"name {index} $" for index in range(num_classes)]
    draw(matrix, names, tmp_path / "many.png")
    left, _, right = drawn_figures[0].axes
    shares = (cells_of(left)[..., 3] / palette.FULL_OPACITY) ** (1 / GAMMA)
    assert len(shares) <= 100
    np.testing.assert_allclose(shares.sum(axis=1), 1)
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
    return [Tile(black, f"{i} $.png", f"class_{i}", i + 7, 0.5, **changes) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_contact_sheet_has_a_tile_a_picture(count, figures, tmp_path):
    save_sheet(tiles(count), tmp_path / "sheet.png", num_all=60)
    titles = [axes.get_title(loc="left") for axes in figures[0].axes]
    assert [title for title in titles if title] == [
        f"class_{i}  50.0 %\n{i} $.png" for i in range(count)
    ]
    assert suptitle(figures[0]) == f"{count} of 60 pictures"


def test_a_map_is_drawn_beside_its_picture_and_hides_none_of_what_speaks_for_nothing(
    drawn_figures, tmp_path
):
    """Fault V1: with a scale, and only where the network was fed."""
    heat = np.zeros((8, 8), np.float32)
    heat[2, 3] = 1
    made = tiles(2, heat=Heat(heat, (1.0, 2.0, 7.0, 8.0)))
    save_sheet(made, tmp_path / "sheet.png", num_all=2)
    original, marked, *_, scale = drawn_figures[0].axes
    assert len(original.get_images()) == 1
    _, over = marked.get_images()
    opacity = over.get_alpha()
    assert opacity[2, 3] > 0.4 and np.count_nonzero(opacity) == 1
    assert list(over.get_extent()) == [0.5, 6.5, 7.5, 1.5]
    assert scale.get_ylabel().startswith("what speaks for the class")


@pytest.mark.parametrize("scale", [1.2e-5, 1.2e-4, 1.0, 1.2e5])
def test_the_curves_numbers_are_inside_the_picture(scale, drawn_figures, tmp_path):
    records = [
        interval(0, 0, loss=scale, learning_rate=1e-7),
        epoch_line(0, train_loss=scale, val_loss=0.5 * scale),
        epoch_line(1, train_loss=0.3 * scale, val_loss=0.7 * scale),
    ]
    save_curves(records, tmp_path / "curves.png")
    (figure,) = drawn_figures
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    assert boxes[0].x1 <= boxes[1].x0 and boxes[1].x1 <= boxes[2].x0


# Names


def test_a_class_that_cannot_be_drawn_is_its_number_and_a_font_is_named(
    figures, tmp_path, monkeypatch
):
    """Fault V1: the number of the class, not of the tile; of the file its place in the sheet."""
    monkeypatch.setattr(text, "_other_fonts", lambda: ())
    black = np.zeros((8, 8, 3), np.uint8)
    made = [Tile(black, "a.png", "owl", 7, 0.5), Tile(black, "\u4e01.png", "\u4e01\u9999", 12, 0.5)]
    remark = save_sheet(made, tmp_path / "sheet.png", num_all=2)
    titles = [axes.get_title(loc="left") for axes in figures[0].axes]
    assert titles == ["owl  50.0 %\na.png", "#12  50.0 %\npicture 2"]
    assert "2 names have" in remark and "fonts-noto-cjk" in remark
    assert save_sheet(made[:1], tmp_path / "sheet.png", num_all=1) == ""
    matrix = ConfusionCounts(np.array([0]), np.array([1]), 2)
    assert "fonts-noto-cjk" in save_confusion(matrix, ["a", "\u4e01"], tmp_path / "matrix.png")
    assert save_confusion(matrix, ["a", ""], tmp_path / "matrix.png") == ""


def test_a_font_that_was_installed_since_is_found(monkeypatch, tmp_path):
    """Fault V1: matplotlib looks for fonts once for all, and keeps the list in a file."""
    added = []
    manager = text.font_manager.fontManager
    monkeypatch.setattr(manager, "addfont", added.append)
    known = manager.ttflist[0].fname
    fonts = [known, str(tmp_path / "new.ttf")]
    monkeypatch.setattr(text.font_manager, "findSystemFonts", lambda: fonts)
    text._find_new_fonts.cache_clear()
    for _ in range(2):
        text._find_new_fonts()
    assert added == [fonts[1]]


@pytest.mark.parametrize(
    ("name", "columns"),
    [("abc", 3), ("\u4e01\u9999\u9c7c", 6), ("e\u0301", 1), ("\uff21", 2), ("\uac00a", 3)],
)
def test_widths_are_columns(name, columns):
    """Fault V1."""
    assert text.num_columns(name) == columns


@pytest.mark.parametrize("name", ["\u4e01" * 60, "x" * 60, "a\u4e01" * 30])
def test_a_shortened_name_has_its_columns(name):
    """Fault V1: by columns, so that a Chinese name takes no more room than a Latin one."""
    short = text.shortened(name, 20)
    assert 18 <= text.num_columns(short) <= 20 and "\u2026" in short
    assert name.startswith(short.partition("\u2026")[0]) and name.endswith(short[-2:])


def test_a_name_is_not_cut_where_there_is_room_for_it(figures, tmp_path):
    """Fault V2."""
    name = "a class of several words, such as ImageNet has"
    draw([[1, 0], [0, 1]], [name, "b"], tmp_path / "room.png")
    assert class_labels(figures[0])[0].replace("\n", " ") == name


def test_names_of_any_width_are_inside_the_picture(drawn_figures, tmp_path):
    draw(np.eye(20, dtype=int), ["W" * 28] * 20, tmp_path / "wide.png")
    (figure,) = drawn_figures
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1


# One palette


PAPERS = ("#ffffff", "#fbfbfa", "#15181c")


@pytest.mark.parametrize("paper", PAPERS)
def test_every_line_can_be_told_from_the_paper(paper):
    """Fault V2: 3 : 1, in the light theme and in the dark one."""
    for name in ("TRAINING", "VALIDATION", "VALIDATION_TOP5", "FAINT"):
        assert contrast(getattr(palette, name), paper) >= 3, name


def over(colour: str, paper: str) -> str:
    """A colour at its full opacity upon a paper."""
    mixed = (
        round(palette.FULL_OPACITY * int(colour[i : i + 2], 16)
              + (1 - palette.FULL_OPACITY) * int(paper[i : i + 2], 16))
        for i in (1, 3, 5)
    )  # fmt: skip
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


@pytest.mark.parametrize(("paper", "ink"), [("#ffffff", "#1d2126"), ("#1c2025", "#e4e7ea")])
def test_the_counts_can_be_read_upon_the_cells(paper, ink):
    """Fault V3."""
    for colour in (palette.RIGHT, palette.WRONG):
        assert contrast(over(colour, paper), ink) >= 4.5


def test_right_and_wrong_have_hues_of_their_own(figures, tmp_path):
    """Fault V3."""
    draw([[1, 1], [1, 1]], ["a", "b"], tmp_path / "hues.png")
    cells = cells_of(figures[0].axes[0])
    for row, column in np.ndindex(2, 2):
        expected = to_rgb(palette.RIGHT if row == column else palette.WRONG)
        np.testing.assert_allclose(cells[row, column, :3], expected)


def test_no_legend_covers_data(figures, tmp_path):
    """Fault V2."""
    records = [interval(0, 0), interval(0, 1), epoch_line(0), interval(1, 1), epoch_line(1)]
    drawn = curves(records, figures, tmp_path)
    legends = [axes.get_legend() for axes in drawn if axes.get_legend()]
    assert len(legends) == 2
    for legend in legends:
        assert legend.get_window_extent().y0 >= legend.axes.get_window_extent().y1 - 1


def test_page_and_file_have_the_same_drawing(drawn_figures, tmp_path):
    """Fault V2: a colour that means training in one means it in the other."""
    records = [interval(0, 0), interval(0, 1), epoch_line(0), epoch_line(1)]
    save_curves(records, tmp_path / "curves.png")
    charts = curve_charts(curves_of(records))
    assert [chart.title for chart in charts] == ["loss", "accuracy (%)", "learning rate"]
    in_file, in_page = drawn_figures[0].axes, [figure.axes[0] for figure in drawn_figures[1:]]
    for one, other in zip(in_file, in_page, strict=True):
        looks = [
            [(line.get_label(), line.get_color(), line.get_xydata().tolist()) for line in a.lines]
            for a in (one, other)
        ]
        assert looks[0] == looks[1]
    assert palette.TRAINING.lower() in charts[0].svg.lower()


def test_a_drawing_within_a_page_is_small_whole_and_the_same_each_time():
    records = [
        {**interval(0, step, loss=1.0 + step % 7), "num_steps": 50_000}
        for step in range(0, 50_000, 5)
    ]
    first, second = (curve_charts(curves_of(records))[0].svg for _ in range(2))
    assert first == second and len(first) < 40_000
    assert "http" not in first and "<style" not in first and "#000000" not in first
    ids = re.findall(r'id="([^"]*)"', first)
    named = re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', first)
    assert {a or b for a, b in named} == set(ids) and all(i.startswith("loss-") for i in ids)


def test_a_page_may_have_text_that_no_font_here_has():
    figure = Figure()
    figure.text(0.5, 0.5, "\u4e01 <b> & \U0001f600")
    assert "\u4e01 &lt;b&gt; &amp; \U0001f600" in inline_svg(figure, name="x", summary="a & b")


# The rate, and means of few images


def drawn_rate(records, figures, folder, schedule):
    """{epochs done: rates} of the corners of the line."""
    save_curves(records, folder / "curves.png", schedule=schedule, num_classes=10)
    (line,) = figures[-1].axes[2].get_lines()
    return line.get_xydata()


def rated(schedule, *, num_epochs, num_steps, every):
    """The log of a run with that schedule."""
    return [
        interval(e, s, num_steps=num_steps, learning_rate=schedule.learning_rate(e + s / num_steps))
        for e in range(num_epochs)
        for s in range(num_steps)
        if s % every == 0 or s == num_steps - 1
    ]


@pytest.mark.parametrize(("num_steps", "num_epochs"), [(4, 3), (30, 2), (400, 5)])
def test_the_rate_is_drawn_as_the_schedule_has_it(num_steps, num_epochs, figures, tmp_path):
    """Fault S15: a ramp and a cosine, though the log has a line or two an epoch."""
    options = ScheduleOptions("cosine", 0.1, num_epochs=num_epochs, warmup_epochs=1)
    schedule = build_schedule(options, num_cards=1)
    records = rated(schedule, num_epochs=num_epochs, num_steps=num_steps, every=100)
    x, y = drawn_rate(records, figures, tmp_path, schedule).T
    assert x[0] == 0 and x[-1] == num_epochs and (np.diff(x) >= 0).all()
    for step in range(num_epochs * num_steps):
        middle = (step + 0.5) / num_steps
        expected = schedule.learning_rate(step / num_steps)
        assert np.interp(middle, x, y) == pytest.approx(expected, abs=0.002)


def test_an_epoch_whose_log_has_other_rates_is_drawn_as_it_was_logged(figures, tmp_path):
    """Fault S15: a run that went on with another rate is not drawn as if it always had it."""
    before, after = (
        build_schedule(ScheduleOptions("step", rate, num_epochs=2), num_cards=1)
        for rate in (0.5, 0.1)
    )
    records = [
        *rated(before, num_epochs=1, num_steps=4, every=2),
        *[r for r in rated(after, num_epochs=2, num_steps=4, every=2) if r["epoch"] == 1],
    ]
    x, y = drawn_rate(records, figures, tmp_path, after).T
    assert set(y[x < 1]) == {0.5} and set(y[x >= 1]) == {0.1}


def test_a_mean_of_few_images_has_no_point_of_its_own(figures, tmp_path):
    """Fault S15: the first step of an epoch and a last one of a single image."""
    losses = [(0, 32, 9.0), (10, 320, 2.0), (20, 320, 1.0), (21, 1, 50.0)]
    records = [
        interval(epoch, step, num_steps=22, num_images=images, loss=loss)
        for epoch in range(2)
        for step, images, loss in losses
    ]
    loss, _, _ = curves(records, figures, tmp_path)
    values = [y for _, y in line(loss, "training, log")]
    assert len(values) == 4 and max(values) < 3
    assert values[0] == pytest.approx((32 * 9.0 + 320 * 2.0) / 352)
    assert values[-1] == pytest.approx((320 * 1.0 + 1 * 50.0) / 321)


def test_the_best_five_of_five_classes_have_no_line(figures, tmp_path):
    """Fault V2: they are all."""
    for num_classes in (5, 6):
        save_curves([epoch_line(0), epoch_line(1)], tmp_path / "c.png", num_classes=num_classes)
    five, six = (figure.axes[1] for figure in figures)
    assert len(six.get_lines()) == len(five.get_lines()) + 1
    assert line(six, "validation top-5")


@pytest.mark.parametrize(("num_classes", "is_drawn"), [(3, True), (1000, False)])
def test_chance_is_drawn_where_the_accuracies_are_near_it(num_classes, is_drawn, figures, tmp_path):
    """Fault V2."""
    records = [epoch_line(e, val_accuracy_top1=30.0 + 10 * e) for e in range(3)]
    _, accuracy, _ = curves(records, figures, tmp_path)
    save_curves(records, tmp_path / "curves.png", num_classes=num_classes)
    labels = [drawn.get_label() for drawn in figures[-1].axes[1].get_lines()]
    assert ("chance" in labels) is is_drawn


# Reliability


def test_bins_of_few_images_are_not_joined_as_if_they_were_certain(figures, tmp_path):
    """Fault V3."""
    confidences = np.array([0.1] * 2 + [0.5] * 30 + [0.9] * 40)
    is_correct = np.arange(72) % 2 == 0
    save_reliability(confidences, is_correct, tmp_path / "reliability.png", error=0.1)
    above, below = figures[0].axes
    joined = [line for line in above.get_lines() if line.get_linestyle() not in ("None", "none")]
    assert [line.get_label() for line in joined] == ["as it should be"]
    points = [container for container in above.containers if hasattr(container, "has_yerr")]
    assert [len(container.lines[0].get_xdata()) for container in points] == [2, 1]
    assert "fewer than 10 images" in points[1].get_label()
    assert points[1].lines[0].get_markerfacecolor() == "white"
    assert [t.get_text() for t in below.texts if t.get_text()] == ["2", "30", "40"]


@pytest.mark.parametrize(("right", "of"), [(0, 3), (1, 2), (7, 10), (400, 1000), (5, 5)])
def test_the_intervals_are_wilsons(right, of):
    """Fault V3."""
    low, high = wilson_interval(np.array([right / of]), np.array([of]))
    for end in (low[0], high[0]):  # where a true share of that size is 1.96 deviations away
        assert (right / of - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / of, abs=1e-9)
    assert 0 <= low[0] <= right / of <= high[0] <= 1
