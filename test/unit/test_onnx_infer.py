"""tools/onnx_infer.py: ais_bench's command line, files, figures and printed lines, on ONNX."""

import re
import subprocess

import numpy as np
import pytest
from conftest import command, script_environment
from onnx_infer_sandbox import (
    FILE_BYTES,
    INFER,
    NUM_CLASSES,
    SHAPE,
    Infer,
    assert_refused,
    expected,
    make_bins,
    make_model,
    results,
    say_how,
    summary_of,
)


@pytest.fixture
def infer(tmp_path, run_script):
    return Infer(tmp_path, run_script)


@pytest.fixture
def ready(tmp_path):
    """A model of batch 4 and ten bins; returns the bins' content."""
    make_model(tmp_path / "model.onnx")
    return make_bins(tmp_path / "bins", 10)


@pytest.mark.parametrize("batch", [1, 7, 16])
def test_a_model_of_open_batch_runs_at_any_batch_and_padded_results_are_not_written(
    batch, infer, tmp_path
):
    """Pitfall 30. Neither 7 nor 16 divides 17 files."""
    make_model(tmp_path / "model.onnx", batch="n")
    images = make_bins(tmp_path / "bins", 17)
    done = infer("--dymBatch", batch)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "out" / "run")
    assert set(found) == {f"img{number}_0.bin" for number in range(17)}
    for number, logits in enumerate(expected(images)):
        np.testing.assert_allclose(found[f"img{number}_0.bin"], logits, rtol=1e-4, atol=1e-4)
    runs = -(-17 // batch)
    assert (
        f"[INFO] get filesperbatch files0 size:{FILE_BYTES} tensor0size:{batch * FILE_BYTES} "
        f"filesperbatch:{batch} runcount:{runs}\n" in done.stdout
    )
    assert summary_of(tmp_path / "out" / "run")["NPU_compute_time"]["count"] == runs
    assert f"batchsize.mean({batch})" in done.stdout


@pytest.mark.parametrize("outfmt", ["BIN", "NPY", "TXT"])
@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_every_format_goes_in_and_out(outfmt, suffix, infer, tmp_path):
    make_model(tmp_path / "model.onnx")
    images = make_bins(tmp_path / "bins", 6, suffix=suffix)
    assert infer("--outfmt", outfmt).returncode == 0
    found = results(tmp_path / "out" / "run")
    assert set(found) == {f"img{number}_0.{outfmt.lower()}" for number in range(6)}
    for number, logits in enumerate(expected(images)):
        name = f"img{number}_0.{outfmt.lower()}"
        np.testing.assert_allclose(found[name].ravel(), logits, rtol=1e-4, atol=1e-4)


def test_a_text_result_is_a_row_of_six_digits_with_a_trailing_space(ready, infer, tmp_path):
    assert infer("--outfmt=TXT").returncode == 0
    text = (tmp_path / "out" / "run" / "img3_0.txt").read_text()
    assert re.fullmatch(r"(-?\d+\.\d{6} ){5}\n", text)


def test_the_last_batch_is_filled_with_copies_of_its_first_file(infer, tmp_path):
    make_model(tmp_path / "model.onnx", kind="coupled")
    images = make_bins(tmp_path / "bins", 6)
    assert infer().returncode == 0
    plain = expected(images[[4, 5, 4, 4]])
    found = results(tmp_path / "out" / "run")["img5_0.bin"]
    np.testing.assert_allclose(found, plain[1] + plain.mean(0), rtol=1e-4, atol=1e-4)


def test_the_printed_lines_come_in_order_and_to_the_letter(ready, infer, tmp_path):
    value = r"\d[\d.e+-]*"
    times = f"min = {value}, max = {value}, mean = {value}, median = {value}, "
    times += rf"percentile\(99%\) = {value}"
    say_how(tmp_path / "model.onnx", tmp_path / "bins")
    done = infer("--display_all_summary", "1")
    assert done.stderr == ""  # no progress bar but on a terminal
    lines = [
        rf"\[INFO\] load model {re.escape(str(tmp_path))}/model.onnx success",
        r"\[INFO\] onnxruntime .* on CPUExecutionProvider, \d+ threads",
        r"\[INFO\] try get model batchsize:4",
        rf"\[INFO\] output path:{re.escape(str(tmp_path))}/out/run",
        r"\[INFO\] get filesperbatch files0 size:768 tensor0size:3072 filesperbatch:4 runcount:3",
        r"\[INFO\] warm up 1 done",
        r"\[INFO\] end-to-end: [\d.]+ images/s \(10 images in [\d.]+ s, .*\)",
        r"\[INFO\] -----------------Performance Summary------------------",
        rf"\[INFO\] H2D_latency \(ms\): {times}",
        rf"\[INFO\] NPU_compute_time \(ms\): {times}",
        rf"\[INFO\] D2H_latency \(ms\): {times}",
        rf"\[INFO\] throughput 1000\*batchsize.mean\(4\)/NPU_compute_time.mean\({value}\): {value}",
        r"\[INFO\] ------------------------------------------------------",
    ]
    printed = done.stdout.splitlines()
    assert len(printed) == len(lines), done.stdout
    for line, pattern in zip(printed, lines, strict=True):
        assert re.fullmatch(pattern, line), line


def test_other_peoples_parsers_read_the_throughput(ready, tmp_path):
    log = tmp_path / "infer.log"
    options = ["--model", tmp_path / "model.onnx", "--input", tmp_path / "bins", "--batchsize", 3]
    options += ["--output", tmp_path, "--output_dirname", "throughput"]
    with open(log, "w") as file:
        subprocess.run(
            command(INFER, options), stdout=file, stderr=file, env=script_environment(), check=True
        )
    parser = ["bash", "-c", "grep throughput \"$1\" | awk '{print $NF}'", "parser", log]
    printed = subprocess.run(parser, capture_output=True, text=True, check=True).stdout.split()
    summary = summary_of(tmp_path / "throughput")
    assert float(printed[-1]) == summary["throughput"]
    times = summary["npu_compute_time_list"]
    assert summary["throughput"] == pytest.approx(1000 * 3 / np.mean(times))


def test_the_summary_has_the_known_keys(ready, infer, tmp_path):
    assert infer("--loop=2", "--warmup_count=3").returncode == 0
    summary = summary_of(tmp_path / "out" / "run")
    latencies = ("NPU_compute_time", "H2D_latency", "D2H_latency")
    others = ("filesinfo", "args", "throughput", "npu_compute_time_list", "pid")
    assert set(summary) == {*latencies, *others}
    for name in latencies:
        keys = {"min", "max", "mean", "median", "percentile(99%)", "count"}
        assert set(summary[name]) == keys
        assert summary[name]["count"] == 6  # 3 batches, twice each; warming up isn't counted
    times = summary["npu_compute_time_list"]
    assert summary["NPU_compute_time"]["median"] == np.median(times)
    assert summary["NPU_compute_time"]["percentile(99%)"] == np.percentile(times, 99)
    assert list(summary["filesinfo"]) == [str(number) for number in range(10)]
    assert summary["filesinfo"]["3"] == {
        "infiles": [str(tmp_path / "bins" / "img3.bin")],
        "outfiles": [str(tmp_path / "out" / "run" / "img3_0.bin")],
    }
    assert "--loop=2" in summary["args"]


@pytest.mark.parametrize("word", ["1", "true", "YES", "t", "Y", "0", "False", "no", "f", "n", ""])
@pytest.mark.parametrize("form", ["--display_all_summary={}", "--display_all_summary {}"])
def test_booleans_take_ten_words_in_both_forms(word, form, ready, infer):
    """Fault A4: t, y, f and n too, and the option alone."""
    options = form.format(word).split() if word else ["--display_all_summary"]
    done = infer(*options, output=False)
    assert done.returncode == 0
    assert ("H2D_latency" in done.stdout) == (word.lower() in ("1", "true", "yes", "t", "y", ""))


def test_flags_of_ais_bench_that_mean_nothing_here_are_one_note(ready, infer, tmp_path):
    """Fault A4: its command lines run as they are."""
    flags = ["--run_mode", "array", "--debug=0", "--profiler", 0, "--pipeline", "1", "--threads=2"]
    flags += ["--divide_input", "t", "--npu_id", "0,1", "--perf", "n", "--dump", "--outputSize=99"]
    done = infer(*flags)
    assert done.returncode == 0, done.stderr
    (note,) = (line for line in done.stdout.splitlines() if "without meaning" in line)
    assert note == (
        "[INFO] without meaning here: --run_mode array, --debug false, --profiler false, "
        "--pipeline, --threads 2, --divide_input, --npu_id 0,1, --perf false, --dump, "
        "--outputSize 99"
    )
    assert len(results(tmp_path / "out" / "run")) == 10
    assert "without meaning" not in infer().stdout


@pytest.mark.parametrize("options", [["--dymShape", "image:5,3,8,8"], ["--dymDims=image:5,3,8,8"],
                                     ["--dymHW", "8,8", "--dymBatch", "5"]], ids=str)  # fmt: skip
def test_shapes_give_the_batch(options, infer, tmp_path):
    """Fault A4."""
    make_model(tmp_path / "model.onnx", batch="n")
    make_bins(tmp_path / "bins", 10)
    done = infer(*options)
    assert done.returncode == 0, done.stderr
    assert "filesperbatch:5 runcount:2" in done.stdout and "batchsize.mean(5)" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dymShape", "image:5,3,9,9"], ["image 5 x 3 x 9 x 9 is asked for", "5 x 3 x 8 x 8"]),
        (["--dymShape", "data:5,3,8,8"], ["data 5 x 3 x 8 x 8", "image"]),
        (["--dymShape", "5,3,8,8"], ["'5,3,8,8' is not of the form NAME:N,C,H,W"]),
        (["--dymDims", "image:0,3,8,8"], ["image:16,3,224,224"]),
        (["--dymDims", "image:" + "1," * 5000 + "1"], ["--dymDims"]),
        (["--dymShape", "image:5,3,8,8;image:4,3,8,8"], ["once for each input"]),
        (["--dymHW", "9,8", "--dymBatch", "5"], ["9 x 8 is asked for"]),
        (["--dymHW", "8"], ["'8' is not of the form H,W"]),
        (["--dymShape", "image:5,3,8,8", "--dymBatch", "4"], ["several batches: 4, 5"]),
        (["--dym", "5"], ["--dym"]),
        (["--run_mode", "fast"], ["'fast'", "array"]),
        (["--threads", "many"], ["'many'"]),
    ],
    ids=lambda value: value[0][:20],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(options, words, infer, tmp_path):
    """Fault A4: and `--dym` is no abbreviation of one of three."""
    make_model(tmp_path / "model.onnx", batch="n")
    make_bins(tmp_path / "bins", 10)
    assert_refused(infer(*options), *words)


def test_short_flags_mean_the_long_ones(ready, run_script, tmp_path):
    model, bins = tmp_path / "model.onnx", tmp_path / "bins"
    options = ["-m", model, "-i", bins, "-o", tmp_path / "out", "-l", 2, "-d", 0, "--limit", 4]
    assert run_script(INFER, *options).returncode == 0
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert re.fullmatch(r"\d{4}(_\d\d){2}-\d\d(_\d\d){2}", folder.name)
    assert set(results(folder)) == {f"img{number}_0.bin" for number in range(4)}
    assert summary_of(folder)["NPU_compute_time"]["count"] == 2


def test_without_output_nothing_is_saved(ready, infer, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert infer(output=False).returncode == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_names_with_several_dots_keep_them(infer, tmp_path):
    """Pitfall 32."""
    make_model(tmp_path / "model.onnx")
    make_bins(tmp_path / "bins", 2)
    (tmp_path / "bins" / "img0.bin").rename(tmp_path / "bins" / "a.b.bin")
    (tmp_path / "bins" / "img1.bin").rename(tmp_path / "bins" / "a.c.bin")
    assert infer().returncode == 0
    assert set(results(tmp_path / "out" / "run")) == {"a.b_0.bin", "a.c_0.bin"}


def test_files_of_one_stem_are_refused(ready, infer, tmp_path):
    """Pitfall 32."""
    np.save(tmp_path / "bins" / "img3.npy", ready[3])
    assert_refused(infer(), "img3.bin", "img3.npy", "img3_0")
    assert infer(output=False).returncode == 0


def test_a_file_size_that_does_not_divide_the_tensor_gets_the_known_line(infer, tmp_path):
    make_model(tmp_path / "model.onnx")
    (tmp_path / "bins").mkdir()
    (tmp_path / "bins" / "x.bin").write_bytes(b"x" * 100)
    done = infer()
    assert done.returncode == 2
    assert done.stderr == "[ERROR] arg0 tensorsize: 3072 filesize: 100 not match\n"


def test_results_that_are_not_finite_are_named_and_not_written(ready, infer, tmp_path):
    np.full(SHAPE, np.nan, np.float32).tofile(tmp_path / "bins" / "img4.bin")
    done = infer()
    assert done.returncode == 1
    assert done.stderr.startswith("[Error] 1 without result: ")
    assert "img4.bin: the output is not finite" in done.stderr
    assert len(results(tmp_path / "out" / "run")) == 9
    assert summary_of(tmp_path / "out" / "run")["filesinfo"]["4"]["outfiles"] == []


@pytest.mark.parametrize(("kind", "is_zero"), [("zero", True), ("random", False)])
def test_pure_inference_needs_no_files(kind, is_zero, ready, infer, tmp_path):
    done = infer("--loop=20", "--pure_data_type", kind, inputs=None)
    assert done.returncode == 0, done.stderr
    assert "filesperbatch" not in done.stdout
    assert "(80 images in " in done.stdout
    ((name, logits),) = results(tmp_path / "out" / "run").items()
    assert name == "pure_infer_data_0.bin"
    assert logits.size == 4 * NUM_CLASSES
    assert (logits == 0).all() == is_zero
    assert summary_of(tmp_path / "out" / "run")["NPU_compute_time"]["count"] == 20


def test_outputs_are_cut_along_the_axis_asked_for(infer, tmp_path):
    make_model(tmp_path / "model.onnx", kind="transposed")
    images = make_bins(tmp_path / "bins", 4)
    assert infer("--output_batchsize_axis=1").returncode == 0
    found = results(tmp_path / "out" / "run")["img2_0.bin"].ravel()
    np.testing.assert_allclose(found, expected(images)[2], rtol=1e-4, atol=1e-4)
    assert_refused(infer(), "(5, 4)", "--output_batchsize_axis")


def test_a_model_of_open_batch_asks_for_it(ready, infer, tmp_path):
    """Pitfall 30."""
    make_model(tmp_path / "model.onnx", batch="n")
    assert_refused(infer(), "--dymBatch")
