"""Prediction files: ais_bench's formats to the byte, and what is wrong with broken ones."""

import os
import random
from decimal import Decimal

import numpy as np
import pytest

from lib.offline.fast_text import rows_of_millionths
from lib.offline.prediction_files import (
    parse_prediction,
    prediction_names,
    read_whole,
    stem_of,
    write_prediction,
)

VALUES = np.array([0.0, -1.5, 12.345678, 1e-7, -123456.0, 3.4e38], np.float32)


def read_prediction(path) -> np.ndarray:
    """Return the values of a file as float32."""
    return parse_prediction(read_whole(path), path.name).astype(np.float32)


def percent_f(values) -> bytes:
    return b"".join(b"%f " % value for value in values) + b"\n"


def test_text_is_what_ais_bench_writes(tmp_path):
    values = np.array([[0.5, -1.25], [2, 1e-7]], np.float32)
    path = write_prediction(values, tmp_path / "a.b_0", "TXT")
    assert path.name == "a.b_0.txt"
    assert path.read_bytes() == b"0.500000 -1.250000 \n2.000000 0.000000 \n"
    write_prediction(np.array([1.0, 2.0]), tmp_path / "flat_0", "TXT")
    assert (tmp_path / "flat_0.txt").read_bytes() == b"1.000000 2.000000 \n"


def test_bin_is_raw_float32_and_npy_is_numpys_own(tmp_path):
    values = np.arange(6.0).reshape(2, 3)
    assert write_prediction(values, tmp_path / "a_0", "BIN").read_bytes() == b"".join(
        np.float32(value).tobytes() for value in range(6)
    )
    stored = np.load(write_prediction(values, f"{tmp_path}/a_1", "NPY"))
    assert stored.shape == (2, 3) and stored.dtype == np.float32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_0.bin", "a_1.npy"]


@pytest.mark.parametrize("outfmt", ["BIN", "NPY", "TXT"])
def test_what_is_written_is_read_again(tmp_path, outfmt):
    path = write_prediction(VALUES[None], tmp_path / "a_0", outfmt)
    values = read_prediction(path)
    assert values.dtype == np.float32 and values.shape == (6,)
    allowed = 5e-7 if outfmt == "TXT" else 0
    np.testing.assert_allclose(values, VALUES, rtol=0, atol=allowed)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    (tmp_path / "a_0.bin").mkdir()
    with pytest.raises(OSError):
        write_prediction(VALUES, tmp_path / "a_0", "BIN")
    assert [path.name for path in tmp_path.iterdir()] == ["a_0.bin"]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int32])
def test_numpy_files_of_other_types_are_read_too(tmp_path, dtype):
    np.save(tmp_path / "a_0.npy", np.arange(4, dtype=dtype).reshape(2, 2))
    np.testing.assert_array_equal(read_prediction(tmp_path / "a_0.npy"), [0, 1, 2, 3])


def test_an_unknown_format_is_refused(tmp_path):
    (tmp_path / "a_0.csv").write_text("1")
    with pytest.raises(ValueError, match=r"a_0.csv: predictions end in one of .bin, .npy, .txt"):
        read_prediction(tmp_path / "a_0.csv")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a_0.txt", b"", "a_0.txt is empty"),
        ("a_0.txt", b" \n", "a_0.txt is empty"),
        ("a_0.bin", b"", "a_0.bin is empty"),
        ("a_0.npy", b"", "a_0.npy is empty"),
        ("a_0.bin", b"12345", "5 bytes, which is no number of float32 values"),
        ("a_0.txt", b"1.000000 2.000000 -3.00", r"cut short: it ends with '-3\.00'"),
        ("a_0.txt", b"1.000000 2.000000 -", "cut short: it ends with '-'"),
        ("a_0.txt", b"1.000000 x \n", "something else than numbers"),
        ("a_0.npy", b"\x93NUMPY\x01", "damaged"),
        ("a_0.npy", b"not numpy", "damaged"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=expected):
        read_prediction(tmp_path / name)


def test_a_numpy_file_that_could_run_code_or_holds_no_numbers_is_refused(tmp_path):
    np.save(tmp_path / "a_0.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="a_0.npy holds object, no array of numbers"):
        read_prediction(tmp_path / "a_0.npy")
    for value in ("1.0", True, 1j, np.datetime64("2026-01-01")):
        np.save(tmp_path / "b_0.npy", np.array([value]))
        with pytest.raises(ValueError, match="no array of numbers"):
            read_prediction(tmp_path / "b_0.npy")


def npy(header: str, content: bytes = bytes(16), version: int = 1) -> bytes:
    """An .npy file with any text in its header's place."""
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + content


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4.0), }"),
        npy("{'descr': ('<f4', (1000000000000,)), 'fortran_order': False, 'shape': (4,), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (4,), }"),
        npy("{'descr': '\x1b[31m', 'fortran_order': False, 'shape': (4,), }"),
        npy("{'descr': 5, 'fortran_order': None, 'shape': 4}"),
        npy("(" * 9000),
        npy("[" * 9000 + "]" * 900, version=2),
        npy("{'descr': '<f4"),
        npy("5"),
        npy("", version=3),
        npy("", version=9),
        npy("\x00" * 40),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        b"PK\x03\x04" + bytes(60),
    ],
)
def test_a_false_header_is_one_line_and_no_memory(tmp_path, content):
    """Fault R6: what it claims isn't fetched, and what it holds never reaches a terminal."""
    (tmp_path / "a_0.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"^a_0\.npy ") as caught:
        read_prediction(tmp_path / "a_0.npy")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_files_of_either_order_are_read_in_the_same_one(tmp_path, order):
    np.save(tmp_path / "a_0.npy", np.asarray(np.arange(6.0).reshape(2, 3), order=order))
    assert read_prediction(tmp_path / "a_0.npy").tolist() == [0, 1, 2, 3, 4, 5]


def test_what_is_no_regular_file_is_named_and_never_waited_for(tmp_path):
    """Fault R7: a pipe has no writer, and a device no end."""
    os.mkfifo(tmp_path / "a_0.bin")
    (tmp_path / "b_0.bin").symlink_to("/dev/zero")
    (tmp_path / "d_0.bin").mkdir()
    for name in ("a_0.bin", "b_0.bin", "d_0.bin"):
        with pytest.raises(ValueError, match=f"{name} is no regular file"):
            read_prediction(tmp_path / name)
    with open(tmp_path / "e_0.bin", "wb") as file:
        file.truncate(2**31)  # takes no room on the disk
    with pytest.raises(ValueError, match="e_0.bin is too large"):
        read_prediction(tmp_path / "e_0.bin")
    (tmp_path / "e_0.bin").unlink()
    np.float32([1, 2]).tofile(tmp_path / "e_0.bin")
    (tmp_path / "f_0.bin").symlink_to("e_0.bin")
    assert read_prediction(tmp_path / "f_0.bin").tolist() == [1, 2]


def test_text_of_other_tools_is_read_too(tmp_path):
    """Exponents, one value a line, no line end: whole, as far as that can be told."""
    for content in (b"1e-3 2 nan inf", b"0.001\n2\nNaN\ninf\n", b"0.001  2.0\tnan +inf "):
        (tmp_path / "a_0.txt").write_bytes(content)
        np.testing.assert_array_equal(
            read_prediction(tmp_path / "a_0.txt"), np.float32([1e-3, 2, np.nan, np.inf])
        )
    (tmp_path / "a_0.txt").write_bytes(b"1.000000 2.000000")
    assert read_prediction(tmp_path / "a_0.txt").tolist() == [1, 2]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("ILSVRC2012_val_00000001_0.txt", "ILSVRC2012_val_00000001"),
        ("a.b_0.bin", "a.b"),
        ("a.c_12.npy", "a.c"),
        ("device1/a_b.c_0.bin", "a_b.c"),
        ("plain.bin", "plain"),
    ],
)
def test_the_stem_is_the_name_without_output_index_and_ending(name, stem):
    """Pitfall 32."""
    assert stem_of(name) == stem


def test_a_folders_predictions_are_listed_in_order(tmp_path):
    """Fault A1: a run on several devices leaves a folder a device, `device<id>_<index>` today."""
    for folder in ("device1", "device1_0", "device1_x", "other"):
        (tmp_path / folder).mkdir()
    for name in (
        "b_0.txt", "a_0.bin", "._a_0.bin", ".a_0.bin.tmp", "x_summary.json", "device1/c_0.npy",
        "device1/.d_0.npy", "other/e_0.bin", "device1_0/f_0.bin", "device1_0_summary.json",
        "device1_x/g_0.bin",
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"1")
    names = ["a_0.bin", "b_0.txt", "device1/c_0.npy", "device1_0/f_0.bin"]
    assert prediction_names(tmp_path) == names
    with pytest.raises(FileNotFoundError, match="no such folder of predictions: .*gone"):
        prediction_names(tmp_path / "gone")


def exact_millionths(text: bytes) -> list[int]:
    return [int(Decimal(word.decode()) * 1_000_000) for word in text.split()]


@pytest.mark.parametrize("scale", [0.01, 1, 30, 1500, 2500, 1e6, 9e6])
def test_batches_of_text_are_read_exactly(scale):
    noise = np.random.default_rng(int(scale))
    texts = [percent_f(noise.normal(0, scale, 50)) for _ in range(7)]
    texts[1] = texts[1].rstrip()
    texts[2] = texts[2].rstrip() + b"\n"
    texts[3] = texts[3].rstrip() + b" \r\n"
    rows = rows_of_millionths(texts, num_values=50)
    assert rows is not None and rows.shape == (7, 50)
    assert rows.tolist() == [exact_millionths(text) for text in texts]


def test_the_largest_values_of_32_bits_are_exact():
    text = b"2146.999999 -2147.999999 2147.999999 -0.000001 0.000000 -0.000000 "
    rows = rows_of_millionths([text], num_values=6)
    assert rows is not None and rows[0].tolist() == exact_millionths(text)
    text = text.replace(b"2147", b"2146")
    rows = rows_of_millionths([text], num_values=6)
    assert rows is not None and rows[0].tolist() == exact_millionths(text)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"1.000000", b"1.000000 2.000000 3.000000", b"1.000000  2.000000", b"1.00000 2.000000",
        b"1.0000000 2.000000", b"nan 2.000000", b"1 2.000000", b" 1.000000 2.000000",
        b".000000 2.000000", b"-.000000 2.000000", b"1.000000 -.000000", b"1.000000\n2.000000",
        b"1.000000 2.00000", b"1.00000- 2.000000", b"1-.000000 2.000000", b"1.000000 2-3.000000",
        b"1.000000 --3.000000", b"1.000000 1234567890.000000", b"1.00000e 2.000000",
        b"1:.000000 2.000000", b"1./00000 2.000000", b"1.000000 5 2.000000",
    ],
)  # fmt: skip
def test_text_that_differs_in_any_byte_is_left_to_the_general_reader(text):
    good = b"1.000000 2.000000 \n"
    assert rows_of_millionths([good, good], num_values=2) is not None
    assert rows_of_millionths([text, good], num_values=2) is None
    assert rows_of_millionths([good, text], num_values=2) is None


def test_no_damage_of_a_byte_gives_wrong_numbers():
    """Either the general reader's numbers, or None; whatever byte is put, cut or doubled."""
    rng = random.Random(0)
    text = percent_f(np.random.default_rng(0).normal(0, 9, 12))
    num_read = 0
    for _ in range(4000):
        place = rng.randrange(len(text))
        instead = rng.choice(
            (b"", text[place : place + 1] * 2, bytes([rng.choice(b"0159-. \nx:/")]))
        )
        damaged = text[:place] + instead + text[place + 1 :]
        rows = rows_of_millionths([text, damaged, text], num_values=12)
        if rows is not None:
            num_read += 1
            assert rows[1].tolist() == exact_millionths(damaged)
            assert rows[0].tolist() == rows[2].tolist() == exact_millionths(text)
    assert num_read > 100
