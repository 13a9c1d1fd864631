"""An ONNX file's own account of itself: the metadata that an export writes and others read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lib.config.recipe import Recipe
from lib.runtime.checked import parse_json

if TYPE_CHECKING:
    import onnx

RECIPE_KEY = "hrnet.recipe"  # JSON of a lib.config.recipe.Recipe
CLASS_NAMES_KEY = "hrnet.class_names"  # JSON list, in the order of the outputs
ARCH_KEY = "hrnet.arch"
CHECKPOINT_KEY = "hrnet.checkpoint_sha256"
PROFILE_KEY = "hrnet.profile"  # atc, modern, int8 or fp16

STANDARD_DOMAINS = ("", "ai.onnx")  # two names of ONNX's own operators


def load_model(path: Path) -> onnx.ModelProto:
    """Return the model in a file. Raises FileNotFoundError, and ValueError where it is no ONNX."""
    import onnx  # here: what only needs the keys above starts without it

    if not path.is_file():
        raise FileNotFoundError(f"no such ONNX file: {path}")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's errors have no common base
        raise ValueError(f"{path} is no ONNX model: {' '.join(str(error).split())[:160]}") from None
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses; 0 where it names none."""
    versions = (e.version for e in model.opset_import if e.domain in STANDARD_DOMAINS)
    return max(versions, default=0)


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """Return what the model says of itself, by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def parse_recipe(text: str | None, path: Path) -> Recipe | None:
    """Return the preprocessing in the text under RECIPE_KEY; None where there is no such text.

    `path` names the file in the ValueError that a damaged text raises.
    """
    if text is None:
        return None
    where = f"{path}: its metadata {RECIPE_KEY}"
    return Recipe.from_json(parse_json(text, object, where=where), where=where)


def recipe_of(metadata: Mapping[str, str], path: Path) -> Recipe:
    """Return how the model's pictures are prepared.

    Raises ValueError where the model, `path`, doesn't say.
    """
    recipe = parse_recipe(metadata.get(RECIPE_KEY), path)
    if recipe is None:
        raise ValueError(
            f"{path} records no preprocessing ({RECIPE_KEY}): export it with hrnet_pth2onnx.py"
        )
    return recipe


def class_names_of(model: onnx.ModelProto, path: Path | None = None) -> list[str] | None:
    """Return the class names in the order of the outputs; None where the model has none.

    `path` names the file in the ValueError that anything else than a list of different names
    raises, or another number of them than there are outputs.
    """
    text = metadata_of(model).get(CLASS_NAMES_KEY)
    if text is None:
        return None
    where = f"{path or 'the model'}: its metadata {CLASS_NAMES_KEY}"
    names = parse_json(text, [str], where=where)
    num_outputs = num_outputs_of(model)
    if len(set(names)) < len(names) or (num_outputs and len(names) != num_outputs):
        raise ValueError(
            f"{where} has {len(names)} names, {len(set(names))} of them different, and the model "
            f"{num_outputs or 'an open number of'} outputs: export it again"
        )
    return names


def num_outputs_of(model: onnx.ModelProto) -> int:
    """Return the number of classes; 0 where the model leaves it open."""
    axes = model.graph.output[0].type.tensor_type.shape.dim if model.graph.output else []
    return axes[-1].dim_value if axes else 0
