"""A run folder: who may write there, and what becomes of an earlier run."""

import subprocess
import sys
from pathlib import Path

import pytest

from lib.runtime import run_folder
from lib.runtime.run_folder import (
    check_apart,
    check_writable,
    is_signed,
    lock,
    redirect_output,
    set_aside_older_run,
    sign,
)

REPO = Path(__file__).resolve().parents[2]


def test_the_names_that_others_look_for():
    assert run_folder.CHECKPOINT == "checkpoint.pth.tar"
    assert run_folder.BEST == "model_best.pth.tar"
    assert run_folder.FINAL == "final_state.pth.tar"
    assert (run_folder.RESULT, run_folder.METRICS) == ("result.json", "metrics.jsonl")


def test_a_second_run_is_refused_while_the_first_one_writes(tmp_path):
    """Pitfall 25: two runs of one yaml do not overwrite each other silently."""
    folder = tmp_path / "deep" / "run"
    with lock(folder):
        with pytest.raises(ValueError, match="another run is writing to .* a folder of its own"):
            lock(folder)
        lock(tmp_path / "other").close()
    lock(folder).close()


def test_another_process_is_refused_too(tmp_path):
    """Pitfall 25."""
    code = (
        "from pathlib import Path; from lib.runtime.run_folder import lock; "
        f"lock(Path({str(tmp_path)!r}))"
    )
    with lock(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert "another run is writing to" in done.stderr


def test_an_earlier_run_is_set_aside_whole(tmp_path):
    """Pitfall 25."""
    for name in ("checkpoint.pth.tar", "metrics.jsonl", "result.json"):
        (tmp_path / name).write_text("first")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events").write_text("first")
    (tmp_path / "notes.txt").write_text("the user's own")
    (tmp_path / "performance").mkdir()

    aside = set_aside_older_run(tmp_path)

    assert aside == tmp_path / "previous_1"
    assert {path.name for path in aside.iterdir()} == {
        "checkpoint.pth.tar", "metrics.jsonl", "result.json", "tensorboard",
    }  # fmt: skip
    assert (aside / "tensorboard" / "events").read_text() == "first"
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"notes.txt", "performance", "previous_1"}


def test_each_earlier_run_gets_a_folder_of_its_own(tmp_path):
    """Pitfall 25."""
    for number in (1, 2, 3):
        (tmp_path / "result.json").write_text(str(number))
        assert set_aside_older_run(tmp_path) == tmp_path / f"previous_{number}"
    assert (tmp_path / "previous_2" / "result.json").read_text() == "2"


def test_a_folder_without_a_run_stays_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("the user's own")
    lock(tmp_path).close()
    assert set_aside_older_run(tmp_path) is None
    assert set_aside_older_run(tmp_path / "not there") is None


def _printing_process(path, append):
    """Run a process that prints in several ways, its output redirected to `path`."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from lib.runtime.run_folder import redirect_output\n"
        "print('before')\n"
        f"redirect_output(Path({str(path)!r}), append={append})\n"
        "print('printed'); print('an error', file=sys.stderr); sys.stdout.flush()\n"
        "os.write(1, b'from C\\n'); os.system('echo from a child')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )


def test_all_that_a_process_prints_goes_to_its_log(tmp_path):
    """Pitfall 36: one log a rank."""
    path = tmp_path / "logs" / "rank_1.log"
    done = _printing_process(path, append=False)
    assert (done.stdout, done.stderr) == ("before\n", "")
    first = path.read_text()
    assert sorted(first.splitlines()) == ["an error", "from C", "from a child", "printed"]
    _printing_process(path, append=True)
    assert path.read_text() == first * 2
    _printing_process(path, append=False)
    assert path.read_text() == first


def test_redirecting_needs_a_place_that_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        redirect_output(tmp_path / "file" / "rank_1.log", append=False)


def test_a_folder_that_cannot_be_written_is_told_before_it_is_made(tmp_path):
    check_writable(tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", Path("/proc/x")):
        with pytest.raises(ValueError, match=f"folder {folder} cannot be written .*: give --out"):
            check_writable(folder)


def test_a_run_folder_among_class_folders_is_refused_with_one_beside_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (Path("data"), Path("data") / "runs" / "first", tmp_path / "data" / "run"):
        with pytest.raises(ValueError, match="lies in data, .* such as data_run$"):
            check_apart(folder, Path("data"))
    for folder in (Path("runs"), Path("data_run"), Path("data/../run")):
        check_apart(folder, Path("data"))


def test_no_link_in_a_run_folder_is_followed(tmp_path):
    """Fault R4."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    for name in (".lock", ".launch", "metrics.jsonl", "logs/rank_1.log"):
        (run / name).symlink_to(victim)
    with pytest.raises(ValueError, match=r"\.lock: it is a link: remove it"):
        lock(run)
    sign(run, "a launch")
    assert is_signed(run, "a launch")
    set_aside_older_run(run)
    assert not (run / "metrics.jsonl").is_symlink()
    _printing_process(run / "logs" / "rank_1.log", append=False)
    assert victim.read_text() == "precious"
    assert "printed" in (run / "logs" / "rank_1.log").read_text()


def test_a_lock_that_is_a_hard_link_empties_nothing(tmp_path):
    """Fault R4."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".lock").hardlink_to(tmp_path / "victim")
    lock(tmp_path).close()
    assert (tmp_path / "victim").read_text() == "precious"
