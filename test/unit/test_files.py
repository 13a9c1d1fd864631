"""lib/runtime/files.py: writes that are whole, and that hit no other file."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from lib.runtime import files
from lib.runtime.files import (
    append_lines,
    check_outputs,
    open_atomically,
    scratch_beside,
    write_atomically,
)


def test_a_written_file_has_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(b"new", tmp_path / "x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_no_link_under_a_scratch_files_usual_name_is_followed(tmp_path: Path) -> None:
    """Fault R4."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".x.tmp").symlink_to("victim")
    write_atomically(b"new", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert (tmp_path / "victim").read_text() == "precious"
    assert (tmp_path / ".x.tmp").is_symlink()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_neither_a_pipe_nor_a_folder_under_that_name_is_in_the_way(tmp_path: Path, make) -> None:
    """Fault R4."""
    make(tmp_path / ".x.tmp")
    write_atomically(b"new", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.tmp", "x"]


def test_a_link_under_the_final_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """Fault R4."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "x").symlink_to("victim")
    write_atomically(b"new", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new" and not (tmp_path / "x").is_symlink()
    assert (tmp_path / "victim").read_text() == "precious"


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """Fault R7."""
    (tmp_path / ".x.tmp").write_text("ha")
    write_atomically(b"new", tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_a_living_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    with open(tmp_path / ".x.tmp", "wb") as theirs:
        theirs.write(b"theirs")
        fcntl.flock(theirs, fcntl.LOCK_EX)
        write_atomically(b"ours", tmp_path / "x")
        assert sorted(path.name for path in tmp_path.iterdir()) == [".x.tmp", "x"]
    with open_atomically(tmp_path / "y") as first, open_atomically(tmp_path / "y") as second:
        assert first.name != second.name


def test_a_file_system_without_locks_is_written_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    (tmp_path / ".x.tmp").write_text("somebody's")
    write_atomically(b"new", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert (tmp_path / ".x.tmp").read_text() == "somebody's"


def test_where_the_block_raises_the_old_file_stands_with_no_debris(tmp_path: Path) -> None:
    """Fault L4."""
    write_atomically(b"old", tmp_path / "x")
    with pytest.raises(KeyboardInterrupt), open_atomically(tmp_path / "x") as file:
        file.write(b"ha")
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_scratch_file_that_was_not_renamed_is_removed(tmp_path: Path) -> None:
    with scratch_beside(tmp_path / "m.onnx", suffix=".onnx") as file:
        assert Path(file.name).name == ".m.onnx.tmp.onnx"
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_to_and_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "replace", lambda *_: pytest.fail("it would be gone"))
    write_atomically(b"gone", "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_a_broken_line_is_ended_before_the_next_one(tmp_path: Path) -> None:
    """Fault L5."""
    path = tmp_path / "x.jsonl"
    append_lines(b"one\n", path)
    with open(path, "ab") as file:
        file.write(b"ha")
    append_lines(b"two\n", path)
    append_lines(b"three\n", path)
    assert path.read_bytes() == b"one\nha\ntwo\nthree\n"


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault L5."""
    path = tmp_path / "x.jsonl"
    append_lines(b"one\n", path)

    def write_half(file, data) -> None:
        file.write(data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(files, "write_whole", write_half)
        append_lines(b"two\n", path)
    append_lines(b"three\n", path)
    assert path.read_bytes() == b"one\nthree\n"


def test_lines_are_not_added_to_what_a_link_leads_to(tmp_path: Path) -> None:
    """Fault R4."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "x").symlink_to("victim")
    with pytest.raises(OSError, match="it is a link"):
        append_lines(b"one\n", tmp_path / "x")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_input_is_no_output_whatever_it_is_called(tmp_path: Path, link) -> None:
    """Fault L1."""
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    source.write_bytes(b"a photo")
    if link is None:
        target = tmp_path / ".." / tmp_path.name / "a.png"
    else:
        link(source, target)
    with pytest.raises(ValueError, match=r"--show '.*' is a file to read.* give another name"):
        check_outputs({"--out": None, "--show": target}, [None, "http://x/y", source])


def test_other_files_may_be_written_over(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("an earlier result")
    (tmp_path / "a.png").write_text("the same text")
    check_outputs({"--out": tmp_path / "old", "--x": tmp_path / "new"}, [tmp_path / "a.png", "a\0"])
