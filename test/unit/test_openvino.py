"""tools/onnx_infer.py --backend openvino: the same numbers, batches in parts, bfloat16 if asked."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from onnx_infer_sandbox import (
    INFER,
    SHAPE,
    SIZE,
    Infer,
    assert_refused,
    expected,
    make_bins,
    make_model,
    results,
)

from lib.offline_infer import session
from lib.onnx_file import RECIPE_KEY
from lib.transforms import recipe

pytest.importorskip("openvino")


@pytest.fixture
def infer(tmp_path, run_script):
    return Infer(tmp_path, run_script)


@pytest.fixture
def ready(tmp_path):
    """A model of batch 4 and ten bins; returns the bins' content."""
    make_model(tmp_path / "model.onnx")
    return make_bins(tmp_path / "bins", 10)


def test_openvino_computes_what_the_model_says(ready, infer, tmp_path) -> None:
    done = infer("--backend=openvino", "--outfmt=NPY")
    assert done.returncode == 0, done.stderr
    assert "[INFO] openvino 20" in done.stdout
    found = np.stack([results(tmp_path / "out" / "run")[f"img{n}_0.npy"] for n in range(10)])
    np.testing.assert_allclose(found, expected(ready), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "coupled"])
def test_openvino_computes_a_batch_in_parts_only_where_each_image_counts_for_itself(
    kind, tmp_path, monkeypatch
) -> None:
    """A model that says how it was trained was exported here."""
    images = np.random.default_rng(3).standard_normal((12, *SHAPE), np.float32)
    metadata = {RECIPE_KEY: json.dumps(recipe(SIZE))} if kind == "plain" else None
    make_model(tmp_path / "m.onnx", batch="n", kind=kind, metadata=metadata)
    opened = session.open_session(
        tmp_path / "m.onnx", backend="openvino", dynamic_batch=12, device=0, num_threads=4
    )
    assert len(opened._requests) == (3 if kind == "plain" else 1)
    (logits,), _ = opened.run([images])
    plain = expected(images)
    coupled = plain + plain.mean(0)
    wanted = plain if kind == "plain" else coupled
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
    (again,), _ = opened.run([images[::-1].copy()])
    np.testing.assert_allclose(again[::-1], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4, err_msg="overwritten")


@pytest.mark.parametrize(
    ("batch", "num_threads", "num_parts"),
    [(16, 2, 2), (16, 64, 4), (7, 2, 1), (12, 4, 3), (1, 8, 1), (18, 4, 3), (64, 6, 4)],
)
def test_parts_are_equal_and_neither_many_nor_small(batch, num_threads, num_parts) -> None:
    assert session._num_parts(batch, num_threads) == num_parts


def test_bfloat16_is_near_or_refused_where_the_processor_has_none(ready, infer, tmp_path) -> None:
    done = infer("--backend=openvino", "--precision=bf16", "--outfmt=NPY")
    if not session.computes_in_bf16():
        assert_refused(done, "--precision bf16: this processor does not compute in bfloat16")
        return
    assert re.search(r"\[INFO\] openvino .* threads, bf16", done.stdout)
    found = np.stack([results(tmp_path / "out" / "run")[f"img{n}_0.npy"] for n in range(10)])
    error = np.abs(found - expected(ready)).max()
    assert 0 < error < 0.05 * np.ptp(expected(ready))
    assert error > 1e-3, "float32 after all"


def test_a_processor_without_bfloat16_is_told(tmp_path, ready, run_script, monkeypatch) -> None:
    monkeypatch.setattr(session, "computes_in_bf16", lambda: False)
    given = ["--model", "model.onnx", "--backend", "openvino", "--precision", "bf16"]
    assert_refused(run_script(INFER, *given, cwd=tmp_path), "does not compute in bfloat16: take")
