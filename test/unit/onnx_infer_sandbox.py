"""A tiny classifier, files for it, and a way to run tools/onnx_infer.py on them."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from conftest import Done, RunScript
from onnx import TensorProto, helper, numpy_helper

from lib.config.recipe import Recipe
from lib.offline.prediction_files import parse_prediction, read_whole

INFER = "tools/onnx_infer.py"
SIZE, NUM_CLASSES = 8, 5
SHAPE = (3, SIZE, SIZE)
FILE_BYTES = 4 * 3 * SIZE * SIZE
WEIGHTS = np.random.default_rng(0).standard_normal((3 * SIZE * SIZE, NUM_CLASSES), np.float32)


def expected(images: np.ndarray) -> np.ndarray:
    """What the model of `make_model` computes, by numpy."""
    return images.reshape(len(images), -1) @ WEIGHTS


def make_model(
    path: Path, *, batch: int | str = 4, kind: str = "plain", metadata: dict[str, str] | None = None
) -> Path:
    """Write a linear classifier; `coupled` adds the batch's mean, `transposed` turns it round.

    `reshaped` has the batch written down inside, `summed` gives a single number.
    """
    image = TensorProto.FLOAT16 if kind == "half" else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["plain"]),
        helper.make_node("ReduceMean", ["plain"], ["mean"], axes=[0]),
    ]
    last = {
        "coupled": helper.make_node("Add", ["plain", "mean"], ["class"]),
        "transposed": helper.make_node("Transpose", ["plain"], ["class"]),
        "reshaped": helper.make_node("Reshape", ["plain", "written"], ["class"]),
        "summed": helper.make_node("ReduceSum", ["plain"], ["class"], keepdims=0),
    }
    nodes.append(last.get(kind, helper.make_node("Identity", ["plain"], ["class"])))
    shapes = {"transposed": [NUM_CLASSES, batch], "summed": []}
    shape = shapes.get(kind, [batch, NUM_CLASSES])
    constants = [numpy_helper.from_array(WEIGHTS, "weights")]
    if kind == "reshaped":
        constants.append(numpy_helper.from_array(np.array([batch, NUM_CLASSES]), "written"))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", image, [batch, *SHAPE])],
        [helper.make_tensor_value_info("class", TensorProto.FLOAT, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def make_bins(folder: Path, num_files: int, *, suffix: str = ".bin") -> np.ndarray:
    """Write img<number> files of chance and return their content in number order."""
    folder.mkdir()
    images = np.random.default_rng(1).standard_normal((num_files, *SHAPE), np.float32)
    for number, image in enumerate(images):
        if suffix == ".npy":
            np.save(folder / f"img{number}.npy", image)
        else:
            image.tofile(folder / f"img{number}.bin")
    return images


def say_how(model: Path, bins: Path, **recipe: object) -> None:
    """Let a model and a folder of bins record one recipe, the usual one but for the changes."""
    content = {**Recipe.for_crop(SIZE).as_json(), **recipe}
    changed = onnx.load(model)
    helper.set_model_props(changed, {"hrnet.recipe": json.dumps(content)})
    onnx.save(changed, model)
    (bins / "preprocess.json").write_text(json.dumps({"recipe": content}))


def results(folder: Path) -> dict[str, np.ndarray]:
    """The predictions of a folder by file name."""
    return {
        path.name: parse_prediction(read_whole(path), path.name)
        for path in sorted(folder.iterdir())
    }


def summary_of(folder: Path) -> dict:
    return json.loads(folder.with_name(f"{folder.name}_summary.json").read_text())


@dataclass(frozen=True)
class Infer:
    """Runs the script on a folder's model and bins; results, if saved, go to out/run there."""

    folder: Path
    run_script: RunScript

    def __call__(
        self,
        *options: object,
        model: str = "model.onnx",
        inputs: str | None = "bins",
        output: bool = True,
    ) -> Done:
        options = ("--model", self.folder / model, *options)
        if inputs is not None:
            options += (f"--input={self.folder / inputs}",)
        if output:
            options += ("-o", self.folder / "out", "--output_dirname", "run")
        return self.run_script(INFER, *options)


def assert_refused(done, *words):
    """Exit code 2, one error line with these words, and no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    *remarks, line = done.stderr.splitlines()
    assert all("is given twice" in remark for remark in remarks), done.stderr
    assert line.startswith(("[Error] ", "[ERROR] "))
    for word in words:
        assert str(word) in line
