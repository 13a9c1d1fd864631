"""The benchmark of the offline half: what it compares is equal, and its figures add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RunScript
from export_samples import save_checkpoint, tiny_network

from lib.benchmark import preparing, rounds
from lib.benchmark.rounds import Row

SCRIPT = "tools/benchmark_offline.py"


def test_the_sides_take_turns_and_the_first_turn_does_not_count() -> None:
    calls: list[str] = []
    ours, theirs = rounds.in_turn(lambda: calls.append("ours"), lambda: calls.append("theirs"), 3)
    assert calls == ["ours", "theirs"] * 4
    assert len(ours) == len(theirs) == 3


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    times = iter([0, 1, 10, 12, 20, 22, 30, 32, 40, 41, 50, 58])  # ours 1 2 1 s, theirs 2 2 8 s
    row = rounds.compare(
        "m",
        "c",
        ours=int,
        peer=int,
        num_items=10,
        unit="things/s",
        rounds=3,
        goal=2,
        clock=lambda: next(times),
    )
    assert (row.ours, row.peer, row.ratio) == (10, 5, 2)


def test_rows_are_written_for_people_and_programs() -> None:
    row = Row("infer", "batch 16", 12.3456, 6.0, 2.0576, "images/s", 1.5, "torch", "as it is")
    assert row.as_json()["goal_row"] == ">= 1.5"
    assert rounds.markdown([row]).splitlines()[2] == (
        "| infer: batch 16 | torch | 12.35 | 6 | images/s | 2.06 | 1.5 | as it is |"
    )


def test_different_files_of_the_two_sides_are_refused(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [tiny_data / "val/c0/0.png"]
    monkeypatch.setattr(preparing, "_ours", lambda picture, target, crop: target.write_bytes(b"x"))
    with pytest.raises(ValueError, match=r"1 files differ from torchvision's: 0\.bin"):
        preparing.measure(pictures, tmp_path, crop=64, rounds=1)


@pytest.fixture(scope="module")
def written(
    tiny_data: Path, tiny_yaml: Path, run_script: RunScript, tmp_path_factory
) -> list[dict[str, object]]:
    """The JSON of a small run of everything."""
    folder = tmp_path_factory.mktemp("benchmark")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, path in enumerate(sorted((tiny_data / "val").glob("*/*.png"))):
        (pictures / f"{number}.png").symlink_to(path)
    done = run_script(
        SCRIPT, "--data_path", pictures, "--cfg", tiny_yaml, "--checkpoint",
        save_checkpoint(tiny_network(tiny_yaml), folder / "c.pth"), "--batch", 4, "--rounds", 1,
        "--num_batches", 3, "--num_predictions", 12, "--json", folder / "rows.json",
        "--scratch", folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.glob("benchmark_*")] == [], "the scratch folders stay"
    return json.loads((folder / "rows.json").read_text())


def test_every_part_is_measured_and_says_what_it_compared(written) -> None:
    remarks = {str(row["case"]).split(",")[0]: str(row["remark"]) for row in written}
    assert remarks["to .bin files"] == "11 files bit-equal"
    assert remarks["int8"].startswith("same class for ")
    assert remarks["reading"] == "12 .bin files to TXT"
    assert remarks["TXT"].startswith("largest process ")
    assert [row["mode"] for row in written if row["mode"] != "preprocess"] == ["infer"] * 3 + [
        "score"
    ] * 2


def test_every_figure_is_positive_and_the_ratio_is_theirs(written) -> None:
    for row in written:
        assert row["ours"] > 0 and row["peer"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])  # of a single round


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "'train' is none of preprocess, infer, score"),
        (["infer"], "--data_path DIR is needed"),
        (["preprocess", "--data_path", "nowhere"], "no such folder of pictures: 'nowhere'"),
        (["score", "--rounds", "0"], "--rounds 0: 1 or more is needed"),
    ],
)
def test_what_it_cannot_measure_is_one_line(run_script: RunScript, words, said) -> None:
    done = run_script(SCRIPT, *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line
