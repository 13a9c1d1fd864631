"""tools/onnx_infer.py --backend openvino: the same numbers, batches in parts, bfloat16 if asked."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

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

from lib.config.recipe import Recipe
from lib.export.onnx_metadata import RECIPE_KEY
from lib.offline.infer import openvino_session
from lib.offline.infer.model import ModelDescription, TensorSpec
from lib.offline.infer.openvino_session import OpenVinoSession, _num_parts, computes_in_bf16

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


def opened(path: Path, *, batch: int, num_threads: int = 2) -> OpenVinoSession:
    return OpenVinoSession(path, dynamic_batch=batch, num_threads=num_threads, precision="fp32")


EXPORTED_HERE = {RECIPE_KEY: json.dumps(Recipe.for_crop(SIZE).as_json())}


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_batch_is_computed_in_parts_only_of_a_model_that_was_exported_here(
    is_ours: bool, tmp_path: Path
) -> None:
    """Of any other nobody knows whether each image counts for itself: `coupled` adds their mean."""
    images = np.random.default_rng(3).standard_normal((12, *SHAPE), np.float32)
    wanted = expected(images) if is_ours else expected(images) + expected(images).mean(0)
    kind, metadata = ("plain", EXPORTED_HERE) if is_ours else ("coupled", None)
    path = make_model(tmp_path / "m.onnx", batch="n", kind=kind, metadata=metadata)
    session = opened(path, batch=12, num_threads=3)
    assert len(session._requests) == (3 if is_ours else 1)
    (logits,), _ = session.run([images])
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
    (again,), _ = session.run([images[::-1].copy()])
    np.testing.assert_allclose(again[::-1], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4, err_msg="overwritten")


@pytest.mark.parametrize("kind", ["transposed", "reshaped", "summed"])
def test_a_batch_stays_whole_where_outputs_are_not_a_row_an_image(
    kind: str, tmp_path: Path
) -> None:
    """Whatever its metadata say."""
    images = np.random.default_rng(3).standard_normal((8, *SHAPE), np.float32)
    path = make_model(tmp_path / "m.onnx", batch=8, kind=kind, metadata=EXPORTED_HERE)
    session = opened(path, batch=0)
    assert len(session._requests) == 1
    (found,), _ = session.run([images])
    plain = expected(images)
    wanted = {"transposed": plain.T, "reshaped": plain, "summed": plain.sum()}[kind]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("batch", "num_threads", "num_parts"),
    [(16, 2, 2), (16, 64, 4), (7, 2, 1), (12, 4, 2), (12, 6, 3), (1, 8, 1), (18, 4, 2), (64, 6, 2)],
)
def test_parts_are_equal_not_small_and_leave_no_thread_idle(
    batch: int, num_threads: int, num_parts: int
) -> None:
    image = TensorSpec("image", (batch, *SHAPE), np.dtype(np.float32))
    other = TensorSpec("scale", (1,), np.dtype(np.float32))
    ours = ModelDescription(Path(), (image,), Recipe.for_crop(SIZE))
    assert _num_parts(ours, num_threads) == num_parts
    assert _num_parts(replace(ours, inputs=(image, other)), num_threads) == 1
    assert _num_parts(replace(ours, recipe=None), num_threads) == 1


def test_the_parts_are_computed_side_by_side(tmp_path: Path, monkeypatch) -> None:
    import openvino

    settings: list[dict[str, str]] = []
    plain = openvino.compile_model
    monkeypatch.setattr(
        openvino,
        "compile_model",
        lambda network, device, given: settings.append(given) or plain(network, device, given),
    )
    opened(make_model(tmp_path / "m.onnx", batch=8, metadata=EXPORTED_HERE), batch=0)
    assert settings[0]["NUM_STREAMS"] == "2"


def test_bfloat16_is_near_or_refused_where_the_processor_has_none(ready, infer, tmp_path) -> None:
    done = infer("--backend=openvino", "--precision=bf16", "--outfmt=NPY")
    if not computes_in_bf16():
        assert_refused(done, "--precision bf16: this processor does not compute in bfloat16")
        return
    assert re.search(r"\[INFO\] openvino .* threads, bf16", done.stdout)
    found = np.stack([results(tmp_path / "out" / "run")[f"img{n}_0.npy"] for n in range(10)])
    error = np.abs(found - expected(ready)).max()
    assert 0 < error < 0.05 * np.ptp(expected(ready))
    assert error > 1e-3, "float32 after all"


def test_a_processor_without_bfloat16_is_told(tmp_path, ready, run_script, monkeypatch) -> None:
    monkeypatch.setattr(openvino_session, "computes_in_bf16", lambda: False)
    given = ["--model", "model.onnx", "--backend", "openvino", "--precision", "bf16"]
    assert_refused(run_script(INFER, *given, cwd=tmp_path), "does not compute in bfloat16: take")
