"""lib/offline_infer: what is read, what is refused, and how the work is spread and stopped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace

import numpy as np
import onnx
import pytest
from conftest import command, run_until
from onnx import TensorProto, helper
from onnx_infer_sandbox import (
    FILE_BYTES,
    INFER,
    NUM_CLASSES,
    SHAPE,
    SIZE,
    Infer,
    assert_refused,
    expected,
    make_bins,
    make_model,
    results,
    say_how,
    summary_of,
)
from PIL import Image

from lib.config.recipe import Recipe
from lib.data.rgb import open_rgb
from lib.data.transforms import eval_pixels, normalize
from lib.offline.infer import pipeline
from lib.offline.infer.inputs import Sample, find_tensor_files, natural_key
from lib.offline.infer.model import ModelDescription, RunTime, TensorSpec
from lib.offline.infer.outputs import OutputFolder
from lib.offline.infer.sources import LoadedBatch, TensorFiles


@pytest.fixture
def infer(tmp_path, run_script):
    return Infer(tmp_path, run_script)


@pytest.fixture
def ready(tmp_path):
    """A model of batch 4 and ten bins; returns the bins' content."""
    make_model(tmp_path / "model.onnx")
    return make_bins(tmp_path / "bins", 10)


def test_of_a_folder_only_its_own_tensors_count_and_in_counting_order(tmp_path):
    """Pitfall 32: names may have several dots."""
    names = ["img10.bin", "img2.bin", "IMG1.npy", "a.b.bin"]
    for name in (*names, "notes.txt", "preprocess.json", "._img3.bin"):
        (tmp_path / name).touch()
    (tmp_path / "deeper.bin").mkdir()
    (tmp_path / "deeper.bin" / "img0.bin").touch()
    found = find_tensor_files(str(tmp_path), 1)
    assert [sample.files[0].name for sample in found] == [
        "a.b.bin",
        "IMG1.npy",
        "img2.bin",
        "img10.bin",
    ]
    assert sorted(["a10b2", "a10b10", "a9", "a"], key=natural_key) == ["a", "a9", "a10b2", "a10b10"]


def test_a_file_of_another_size_than_the_rest_is_named(ready, infer, tmp_path):
    (tmp_path / "bins" / "img7.bin").write_bytes(b"x" * 100)
    assert_refused(infer(), "img7.bin", 100, FILE_BYTES)


def test_a_file_that_shrinks_after_it_was_measured_is_named(ready, tmp_path):
    spec = TensorSpec("image", (4, *SHAPE), np.dtype(np.float32))
    samples = find_tensor_files(str(tmp_path / "bins"), 1)
    source = TensorFiles(samples, ModelDescription(tmp_path, (spec,), None))
    (tmp_path / "bins" / "img2.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"img2\.bin has changed its size"):
        source.load(samples[:4])


def test_arrays_of_another_type_than_the_models_input_are_refused(ready, infer, tmp_path):
    (tmp_path / "npy").mkdir()
    np.save(tmp_path / "npy" / "x.npy", np.zeros((1, *SHAPE)))
    assert_refused(infer(inputs="npy"), "x.npy", "float64", "float32")


def test_two_samples_a_file_are_pointed_out(infer, tmp_path):
    """float32 bins into a float16 model look like half the batch of twice the size."""
    make_model(tmp_path / "model.onnx", kind="half")
    make_bins(tmp_path / "bins", 2)
    assert "[WARN] a batch of 4 takes 2 of these files" in infer().stdout
    note = {"recipe": Recipe.for_crop(SIZE).as_json()}
    (tmp_path / "bins" / "preprocess.json").write_text(json.dumps(note))
    assert_refused(infer(), "float32", "float16")


def test_bins_of_another_recipe_than_the_models_are_refused(ready, infer, tmp_path):
    """Pitfall 33."""
    note = tmp_path / "bins" / "preprocess.json"
    metadata = {"hrnet.recipe": json.dumps(Recipe.for_crop(SIZE).as_json())}
    make_model(tmp_path / "model.onnx", metadata=metadata)
    note.write_text(json.dumps({"model": "hrnet", "recipe": Recipe.for_crop(SIZE).as_json()}))
    assert infer().returncode == 0
    note.write_text(json.dumps({"recipe": Recipe.for_crop(SIZE).as_json() | {"resize": 8}}))
    assert_refused(infer(), "resize 8 for 9", tmp_path / "bins")


def warnings(done) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith("[WARN] ")]


@pytest.mark.parametrize("model_says", [False, True])
@pytest.mark.parametrize("bins_say", [False, True])
def test_what_no_side_says_of_the_preprocessing_is_said_at_both_ends(
    model_says, bins_say, ready, infer, tmp_path
):
    """Fault S5: a network on pictures that are prepared otherwise computes as ever."""
    model, note = tmp_path / "model.onnx", tmp_path / "bins" / "preprocess.json"
    say_how(model, tmp_path / "bins")
    if not model_says:
        make_model(model)
    if not bins_say:
        note.unlink()
    done = infer()
    assert done.returncode == 0
    said = {
        (False, False): "says how the pictures are prepared",
        (False, True): "records no preprocessing: the bins in",
        (True, False): "has no preprocess.json: whether its files are prepared as",
    }.get((model_says, bins_say))
    found = warnings(done)
    assert len(found) == (0 if said is None else 2) and len(set(found)) <= 1
    assert said is None or said in found[0]
    # Asked for, it is compared with what the bins say, and nothing is open.
    done = infer("--mean", 0.5, 0.5, 0.5, "--crop_share", 0.95, "--interpolation", "bicubic")
    if bins_say:
        assert_refused(done, "interpolation bilinear for bicubic", "mean 0.485 0.456 0.406 for 0.5")
    else:
        assert "has no preprocess.json" in warnings(done)[-1]


def test_a_recipe_that_is_given_prepares_the_pictures(infer, tmp_path):
    """Fault S5."""
    make_model(tmp_path / "model.onnx", batch=1)
    noise = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(noise).save(tmp_path / "pictures" / "a.png")
    options = ["--input_images", tmp_path / "pictures"]
    usual = Recipe.for_crop(SIZE)
    other = replace(usual, resize=8, interpolation="bicubic", mean=(0.5,) * 3, channels="BGR")
    (tmp_path / "recipe.json").write_text(json.dumps(other.as_json()))

    def logits(*given):
        done = infer(*options, *given, inputs=None)
        assert done.returncode == 0, done.stderr
        return warnings(done), results(tmp_path / "out" / "run")["a_0.bin"].ravel()

    def wanted(recipe):
        planes = normalize(eval_pixels(Image.fromarray(noise), recipe), recipe)
        return pytest.approx(expected(planes[None])[0], rel=1e-4, abs=1e-4)

    said, found = logits()
    assert (
        "records no preprocessing: the pictures are prepared as 8 x 8 of a short side of 9"
        in (said[0])
    )
    assert len(said) == 2 and found == wanted(usual)
    for given in (
        ["--recipe", tmp_path / "recipe.json"],
        ["--resize", 8, "--interpolation", "bicubic", "--mean", *(0.5,) * 3, "--channels", "BGR"],
    ):
        said, found = logits(*given)
        assert said == [] and found == wanted(other)
    (tmp_path / "bins").mkdir()
    say_how(tmp_path / "model.onnx", tmp_path / "bins")
    said, found = logits("--recipe", tmp_path / "recipe.json")
    assert "records another preprocessing than is asked for: resize 8 for 9" in said[0]
    assert found == wanted(other)
    assert_refused(infer(*options, "--mean", 124, 116, 104, inputs=None), "of pixels in 0..1")
    (tmp_path / "recipe.json").write_text('{"crop": 16}')
    done = infer(*options, "--recipe", tmp_path / "recipe.json", inputs=None)
    assert_refused(done, "--recipe is for 16 pixels a side, and 8 are wanted")


def test_a_bin_that_another_tool_replaced_is_noticed(ready, infer, tmp_path):
    """Fault A7: at the same size."""
    note, path = tmp_path / "bins" / "preprocess.json", tmp_path / "bins" / "img7.bin"
    say_how(tmp_path / "model.onnx", tmp_path / "bins")
    content = json.loads(note.read_text())
    sums = {path.stem: zlib.crc32(path.read_bytes()) for path in note.parent.glob("*.bin")}
    note.write_text(json.dumps({**content, "sums": sums}))
    assert infer().returncode == 0
    path.write_bytes(path.read_bytes()[::-1])
    assert_refused(infer(), "img7.bin is no longer as preprocessing wrote it")


@pytest.mark.parametrize(
    "text",
    ["{", "5", "[]", "{}", "[" * 100_000, '{"recipe": 5}', '{"recipe": {"resize": true}}',
     '{"recipe": {}, "sources": {"a": 5}}', '{"recipe": {}, "sums": 5}'],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_record_of_wrong_types_is_one_line(text, ready, infer, tmp_path):
    """Fault R6."""
    (tmp_path / "bins" / "preprocess.json").write_text(text)
    assert_refused(infer(), "preprocess.json", "preprocess the pictures again")


@pytest.mark.parametrize("value", ["null", "[72]", "true", "64.5", '"9"', "-1", "1e99"])
def test_metadata_of_wrong_types_is_one_line(value, ready, infer, tmp_path):
    """Fault R6: some were taken."""
    for text in (f'{{"resize": {value}}}', value, "[" * 100_000):
        make_model(tmp_path / "model.onnx", metadata={"hrnet.recipe": text})
        assert_refused(infer(), "model.onnx: its metadata hrnet.recipe")


def test_arrays_with_false_headers_are_named(ready, infer, tmp_path):
    """Fault R6: what they claim isn't fetched."""
    np.save(tmp_path / "whole.npy", ready[0])
    whole = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "npy").mkdir()
    for content in (
        whole.replace(b"(3, 8, 8)", b"(3, 8, 80000000000)"), whole[:-4], whole + b"x",
        whole.replace(b"<f4", b"|O8"), b"PK\x03\x04" + whole, whole[:20],
    ):  # fmt: skip
        (tmp_path / "npy" / "a.npy").write_bytes(content)
        assert_refused(infer(inputs="npy"), "a.npy")
    np.save(tmp_path / "npy" / "a.npy", np.asfortranarray(ready[0]))
    assert infer(inputs="npy").returncode == 0


def test_a_pipe_or_a_device_among_the_inputs_is_named(ready, infer, tmp_path):
    """Fault R7: nothing waits for it."""
    odd = tmp_path / "bins" / "odd.bin"
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda p: p.symlink_to("x")):
        make(odd)
        assert_refused(infer(), "odd.bin is no regular file")
        if odd.exists():
            assert_refused(infer("--input", odd, inputs=None), "odd.bin is no regular file")
        odd.unlink()


def test_several_devices_share_the_files(ready, run_separately, tmp_path):
    options = ["--model", tmp_path / "model.onnx", "--input", tmp_path / "bins", "--device=1,2"]
    options += ["--output", tmp_path / "out", "--output_dirname", "run"]
    done = run_separately(INFER, *options)
    assert done.returncode == 0, done.stderr
    one, two = (tmp_path / "out" / "run" / f"device{number}" for number in (1, 2))
    assert set(results(one)) == {f"img{number}_0.bin" for number in range(5)}
    assert set(results(two)) == {f"img{number}_0.bin" for number in range(5, 10)}
    assert done.stdout.count("Performance Summary") == 2
    sums = sum(summary_of(folder)["throughput"] for folder in (one, two))
    assert float(done.stdout.split()[-1]) == pytest.approx(sums)
    (tmp_path / "bins" / "img9.bin").write_bytes(b"x")
    assert_refused(run_separately(INFER, *options), "img9.bin")


def test_pictures_give_what_their_bins_give(infer, tmp_path):
    """Pitfall 33: one preprocessing."""
    metadata = {"hrnet.recipe": json.dumps(Recipe.for_crop(SIZE).as_json())}
    make_model(tmp_path / "model.onnx", metadata=metadata)
    rng = np.random.default_rng(2)
    images = []
    for number, folder in enumerate(("", "n1", "n2", "n2", "n2")):
        path = tmp_path / "pictures" / folder / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
        images.append(normalize(eval_pixels(open_rgb(path), Recipe(resize=9, crop=SIZE))))
    options = ["--input_images", tmp_path / "pictures"]
    assert infer(*options, inputs=None).returncode == 0
    found = results(tmp_path / "out" / "run")
    for number, logits in enumerate(expected(np.stack(images))):
        np.testing.assert_allclose(found[f"{number}_0.bin"].ravel(), logits, rtol=1e-4, atol=1e-4)
    (tmp_path / "bins").mkdir()
    for number, image in enumerate(images):
        image.tofile(tmp_path / "bins" / f"{number}.bin")
    where = ("-o", tmp_path / "out", "--output_dirname=of_bins")
    assert infer(*where, output=False).returncode == 0
    of_bins = results(tmp_path / "out" / "of_bins")
    assert all((found[name] == of_bins[name]).all() for name in found), "not equal to the bit"

    (tmp_path / "pictures" / "n1" / "1.png").write_bytes(b"no picture")
    done = infer(*options, inputs=None)
    assert done.returncode == 1
    assert "1.png: UnidentifiedImageError" in done.stderr
    assert set(results(tmp_path / "out" / "run")) == {f"{n}_0.bin" for n in (0, 2, 3, 4)}
    assert "(4 images in " in done.stdout


def test_pictures_are_prepared_by_the_models_own_recipe(infer, tmp_path):
    recipe = Recipe(
        resize=12, crop=SIZE, interpolation="bicubic", mean=(0.5, 0.5, 0.5), channels="BGR"
    )
    metadata = {"hrnet.recipe": json.dumps(recipe.as_json())}
    make_model(tmp_path / "model.onnx", metadata=metadata)
    noise = np.random.default_rng(2).integers(0, 256, (20, 30, 3), np.uint8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(noise).save(tmp_path / "pictures" / "0.png")
    small = Image.fromarray(noise).resize((18, 12), Image.Resampling.BICUBIC)
    margins = ((18 - SIZE) // 2, (12 - SIZE) // 2)
    cut = np.array(small.crop((*margins, margins[0] + SIZE, margins[1] + SIZE)), np.float32)
    image = ((cut / 255)[:, :, ::-1] - 0.5) / np.float32(recipe.std)
    assert infer("--input_images", tmp_path / "pictures", inputs=None).returncode == 0
    found = results(tmp_path / "out" / "run")["0_0.bin"].ravel()
    [logits] = expected(image.transpose(2, 0, 1)[None])
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4)

    recipe = Recipe.for_crop(2 * SIZE)
    make_model(tmp_path / "model.onnx", metadata={"hrnet.recipe": json.dumps(recipe.as_json())})
    said = f"{2 * SIZE} x {2 * SIZE}"
    assert_refused(infer("--input_images", tmp_path / "pictures", inputs=None), said, "--input")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "none.onnx"], ["none.onnx"]),
        (["--model", "bins/img0.bin"], ["img0.bin cannot be loaded"]),
        (["--model", "x.om"], ["ais_bench"]),
        (["--input", "none"], ["no such file or folder: none"]),
        (["--input", "empty"], ["no *.npy or *.bin", "empty"]),
        (["--input", "bins,bins"], ["1 inputs", "10, 10"]),
        (["--input_images", "bins"], ["not allowed with"]),
        (["--output_dirname", "x"], ["--output_dirname needs --output"]),
        (["--output", "x.om", "--output_dirname", "."], ["x.om is a file"]),
        (["--outfmt", "XML"], ["'XML'", "BIN"]),
        (["--display_all_summary", "maybe"], ["'maybe'", "yes"]),
        (["--loop", "0"], ["--loop"]),
        (["--device", "256"], ["--device", "255"]),
        (["--device", "1,1"], ["--device"]),
        (["--dymBatch", "2"], ["--dymBatch 2", "fixed batch of 4"]),
        (["--batchsize", "x"], ["--batchsize"]),
        (["--pure_data_type", "ones"], ["zero", "random"]),
        (["--backend", "openvino"], ["openvino is not installed"]),
        (["--precision", "bf16"], ["--precision bf16 needs --backend openvino"]),
        (["--precision", "fp16"], ["'fp16'", "fp32"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_what_cannot_be_run_is_said_in_one_line(
    options, words, ready, run_script, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.om").touch()
    given = ["--model", "model.onnx", "--input", "bins", *options]
    assert_refused(run_script(INFER, *given, cwd=tmp_path), *words)


def test_a_sample_that_fails_keeps_no_result_of_an_earlier_run(ready, infer, tmp_path):
    """Pitfall 34: it would be scored as if it were of this run."""
    assert infer("--outfmt=TXT").returncode == 0
    assert infer("--outfmt=TXT", "--device=1").returncode == 0
    np.full(SHAPE, np.nan, np.float32).tofile(tmp_path / "bins" / "img3.bin")
    assert infer().returncode == 1
    names = set(results(tmp_path / "out" / "run"))
    assert names == {f"img{number}_0.bin" for number in range(10) if number != 3}


def test_a_run_that_cannot_finish_leaves_no_summary_of_an_earlier_one(infer, tmp_path):
    make_model(tmp_path / "model.onnx", kind="transposed")
    make_bins(tmp_path / "bins", 8)
    summary = tmp_path / "out" / "run_summary.json"
    summary.parent.mkdir()
    summary.write_text("{}")
    assert infer("--output_batchsize_axis=7").returncode == 2
    assert not summary.exists()


def test_the_folder_of_the_inputs_is_no_place_for_the_results(ready, infer, tmp_path):
    before = sorted(path.name for path in (tmp_path / "bins").iterdir())
    done = infer("-o", tmp_path, "--output_dirname=bins", output=False)
    assert_refused(done, "is the folder of the inputs")
    assert sorted(path.name for path in (tmp_path / "bins").iterdir()) == before


def test_a_long_list_of_files_is_no_single_path(ready, infer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "bins")
    names = ",".join(["img0.bin", *[f"./{'./' * 100}img{number}.bin" for number in range(1, 10)]])
    assert infer("--input", names, inputs=None).returncode == 0
    assert len(results(tmp_path / "out" / "run")) == 10


def test_predictions_of_another_run_are_pointed_out(ready, infer, tmp_path):
    say_how(tmp_path / "model.onnx", tmp_path / "bins")
    assert infer().returncode == 0
    assert "[WARN]" not in infer().stdout
    assert "[WARN] 6 predictions of other runs stay in " in infer("--limit=4").stdout


def test_ctrl_c_leaves_whole_files(tmp_path):
    """Pitfall 34: nothing half-written can be scored."""
    make_model(tmp_path / "model.onnx")
    make_bins(tmp_path / "bins", 400)
    options = ["--model", tmp_path / "model.onnx", "--input", tmp_path / "bins", "--loop=3000"]
    options += ["--output", tmp_path, "--output_dirname", "run"]
    log, folder = tmp_path / "log", tmp_path / "run"
    process = run_until(INFER, *options, line="warm up", log=log)
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.bin")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    assert log.read_text().splitlines()[-1] == "stopped by Ctrl-C"
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert 0 < len(sizes) < 400
    assert set(sizes) == {4 * NUM_CLASSES}
    assert not (tmp_path / "run_summary.json").exists()


@pytest.mark.parametrize("devices", ["1", "1,2"])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_all_its_processes(stop, devices, ready, tmp_path):
    options = ["--model", tmp_path / "model.onnx", "--loop=100000000", f"--device={devices}"]
    process = run_until(INFER, *options, line="warm up", log=tmp_path / "log")
    try:
        process.send_signal(stop)
        assert process.wait(60) == 128 + stop  # it waits for its processes
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith("stopped by "), last


def test_a_model_of_two_inputs_takes_a_list_for_each(infer, tmp_path):
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3])
        for name in ("a", "b", "sum", "difference")
    ]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
    nodes.append(helper.make_node("Sub", ["a", "b"], ["difference"]))
    graph = helper.make_graph(nodes, "two", tensors[:2], tensors[2:])
    opset = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=7), tmp_path / "model.onnx")
    for name, offset in (("a", 0), ("b", 10)):
        (tmp_path / name).mkdir()
        for number in range(3):
            np.full(3, offset + number, np.float32).tofile(tmp_path / name / f"{number}.bin")
    folders = f"{tmp_path / 'a'},{tmp_path / 'b'}"
    files = ",".join(f"{tmp_path / name / str(n)}.bin" for name in "ab" for n in range(3))
    for inputs in (folders, files):
        assert infer("--input", inputs, inputs=None).returncode == 0
        found = results(tmp_path / "out" / "run")
        assert len(found) == 6
        assert (found["2_0.bin"] == 14).all()
        assert (found["2_1.bin"] == -10).all()
    assert_refused(infer("--input", tmp_path / "a", inputs=None), "2 inputs")


class MeetingSession:
    """Its second run waits for the third batch to be read and the first result to be written."""

    def __init__(self):
        self.read, self.written = threading.Event(), threading.Event()
        self.num_runs = 0

    def run(self, arrays):
        self.num_runs += 1
        if self.num_runs == 2:
            assert self.read.wait(30), "nothing was read while computing"
            assert self.written.wait(30), "nothing was written while computing"
        return [arrays[0]], RunTime(0.0, 1.0, 0.0)


class CountingSource:
    """Ten batches of one made-up sample."""

    samples = tuple(Sample(f"{number}", ()) for number in range(10))
    samples_per_batch = 1

    def __init__(self, session):
        self.session = session
        self.most_ahead = 0

    def load(self, samples):
        number = int(samples[0].stem)
        self.most_ahead = max(self.most_ahead, number - self.session.num_runs)
        if number == 2:
            self.session.read.set()
        return LoadedBatch((np.zeros((1, 2), np.float32),), tuple(samples))


class TellingFolder(OutputFolder):
    """Tells the session when something is written."""

    def write(self, outputs, samples):
        self.session.written.set()
        return super().write(outputs, samples)


def test_reading_and_writing_overlap_with_computing_within_bounds():
    session = MeetingSession()
    source = CountingSource(session)
    folder = TellingFolder(None, "BIN", 0, 1)
    object.__setattr__(folder, "session", session)  # frozen
    seen = []  # runs done at each call
    tally = pipeline.compute_all(
        session,
        source,
        folder,
        loop=1,
        num_cores=3,
        advance=lambda: seen.append(session.num_runs),
    )
    assert list(tally.written) == list(source.samples)
    assert seen == list(range(1, 11))
    assert source.most_ahead <= 3


def test_the_script_runs_without_torch(ready, tmp_path):
    code = "import os, runpy, sys; sys.modules['torch'] = None; del sys.argv[0]; "
    code += "sys.path.insert(0, os.path.dirname(sys.argv[0])); "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    script = command(INFER, ["--model", tmp_path / "model.onnx", "-i", tmp_path / "bins"])[1:]
    done = subprocess.run([sys.executable, "-c", code, *script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
