"""lib/runtime/arrays.py: arrays of a file are what they must be before memory is taken for them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lib.runtime.arrays import ArrayForms, read_arrays, texts_of

FORMS: ArrayForms = {"a": ("iu", ("N",)), "b": ("f", ("N", "k"))}


def npz(**arrays: object) -> io.BytesIO:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def zipped(content: bytes, name: str = "a.npy") -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_the_form_come_back_as_numpy_gives_them(tmp_path: Path, order: str) -> None:
    a, b = np.arange(3, dtype=np.uint16), np.asarray(np.random.rand(3, 2), order=order)
    (tmp_path / "x.npz").write_bytes(npz(a=a, b=b, more=np.zeros(5)).getvalue())
    found = read_arrays(tmp_path / "x.npz", FORMS, where="x", lengths={"N": 3})
    assert found["a"].dtype == np.uint16
    assert np.array_equal(found["a"], a) and np.array_equal(found["b"], b)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        (npz(a=np.arange(3)), "no item named 'b.npy'"),
        (npz(a=np.zeros(3), b=np.zeros((3, 2))), "a has numbers of type float64, whole numbers"),
        (npz(a=np.array(["x"] * 3), b=np.zeros((3, 2))), "a has numbers of type <U1"),
        (npz(a=np.array([None] * 3), b=np.zeros((3, 2))), "a has numbers of type object"),
        (npz(a=np.arange(3), b=np.zeros(3)), r"b has the shape \(3,\), 2 axes are needed"),
        (npz(a=np.arange(3), b=np.zeros((2, 2))), r"b has the shape \(2, 2\), .* 3 long"),
        (zipped(npy("{'descr': '<i8', 'fortran_order': False, 'shape': (10**12,), }")), ""),
        (
            zipped(npy("{'descr': '<i8', 'fortran_order': False, 'shape': (9000000000000,), }")),
            "a says that it has the shape .9000000000000,., and has another size",
        ),
        (zipped(npy("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }")), "shape"),
        (zipped(npy("{'descr': [('x', 'i8')], 'fortran_order': False, 'shape': (0,), }")), "type"),
        (zipped(npy("[" * 100)), ""),
        (zipped(b"no array"), "magic string"),
        (zipped(b""), "EOF"),
        (io.BytesIO(b"no archive"), "not a zip file"),
        (io.BytesIO(npz(a=np.arange(99)).getvalue()[:-40]), "not a zip file"),
    ],
)
def test_other_arrays_are_refused_in_one_line(file: io.BytesIO, said: str) -> None:
    """Fault R6."""
    with pytest.raises(ValueError, match=f"x.npz is damaged: .*{said}") as caught:
        read_arrays(file, FORMS, where="x.npz")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_texts_end_where_the_ends_say() -> None:
    assert texts_of(b"abcde", np.array([2, 2, 5]), where="x") == [b"ab", b"", b"cde"]
    assert texts_of(b"", np.array([], np.int64), where="x") == []
    for ends in ([2, 1, 5], [2, 4], [2, 6], [], [-1, 5]):
        with pytest.raises(ValueError, match="x is damaged: its names do not end where it says"):
            texts_of(b"abcde", np.array(ends, np.int64), where="x")
