"""Whether pictures, or bins of them, are prepared as a model wants them; what isn't known is said.

A network on pictures that are prepared otherwise than those it was trained on computes as ever, and
is right less often.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib.config.recipe import Recipe
from lib.offline.infer.model import ModelDescription
from lib.offline.preprocess_record import ENDING, RECORD, read_record
from lib.offline.recipe_options import OPTIONS, AskedRecipe

_NEED_NOT = "which need not be what it was trained with, and that would cost accuracy"


@dataclass(frozen=True)
class Wanted:
    """The recipe that a model wants, None where nothing says; and sentences on what is open."""

    recipe: Recipe | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class BinsChecked:
    """What the records of bins say: sentences on what is open, and sums of the files' content."""

    remarks: tuple[str, ...] = ()
    sums: Mapping[Path, int] = field(default_factory=dict)


def side_of(model: ModelDescription) -> int | None:
    """Return the side in pixels where a model takes one picture a sample; None: something else."""
    shape = model.inputs[0].shape
    is_picture = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]
    return shape[2] if is_picture and len(model.inputs) == 1 else None


def wanted_recipe(model: ModelDescription, asked: AskedRecipe | None) -> Wanted:
    """Return the recipe that was asked for, else the one that the model records.

    Raises ValueError for an impossible one.
    """
    if asked is None:
        return Wanted(model.recipe)
    recipe = asked.for_crop(side_of(model))
    if model.recipe is None or recipe == model.recipe:
        return Wanted(recipe)
    differences = ", ".join(recipe.differences(model.recipe))
    remark = f"{model.path} records another preprocessing than is asked for: {differences}"
    return Wanted(recipe, (f"{remark}; what is asked for is taken",))


def recipe_of_pictures(model: ModelDescription, wanted: Wanted) -> tuple[Recipe, tuple[str, ...]]:
    """Return by which recipe to prepare pictures: the usual where nothing says; and the remarks."""
    if wanted.recipe is not None:
        return wanted.recipe, wanted.remarks
    recipe = Recipe.for_crop(side_of(model) or Recipe.crop)
    return recipe, (
        f"{model.path} records no preprocessing: the pictures are prepared as {recipe}, "
        f"{_NEED_NOT}; give its own with {OPTIONS}",
    )


def check_bins(folders: list[Path], model: ModelDescription, wanted: Wanted) -> BinsChecked:
    """Compare how the bins of some folders were made (`preprocess.json`) with what is wanted.

    Raises ValueError that names the differences, or a record that is damaged.
    """
    remarks, sums = list(wanted.remarks), {}
    for folder in folders:
        path = folder / RECORD
        if not path.is_file():
            if side_of(model) is not None:
                remarks.append(_without_record(folder, model, wanted.recipe))
            continue
        try:
            record = read_record(path)
        except ValueError as error:
            raise ValueError(f"{error}: preprocess the pictures again") from None
        _check(folder, record.recipe, model, wanted.recipe)
        if wanted.recipe is None:
            remarks.append(
                f"{model.path} records no preprocessing: the bins in {folder} were prepared as "
                f"{record.recipe}, {_NEED_NOT}; give its own with {OPTIONS} to compare them"
            )
        sums.update({folder / f"{stem}{ENDING}": sum for stem, sum in record.sums.items()})
    return BinsChecked(tuple(remarks), sums)


def _without_record(folder: Path, model: ModelDescription, wanted: Recipe | None) -> str:
    if wanted is None:
        return (
            f"neither {model.path} nor a {RECORD} in {folder} says how the pictures are prepared: "
            "whether they are as the model was trained can't be told"
        )
    return (
        f"{folder} has no {RECORD}: whether its files are prepared as {model.path} wants them "
        f"({wanted}) can't be told"
    )


def _check(folder: Path, made: Recipe, model: ModelDescription, wanted: Recipe | None) -> None:
    differences = made.differences(wanted) if wanted is not None else ()
    if differences:
        raise ValueError(
            f"the bins in {folder} were made otherwise than {model.path} wants them "
            f"({', '.join(differences)}): preprocess the pictures for this model"
        )
    taken = model.inputs[0].dtype.name
    if made.dtype != taken:
        raise ValueError(f"the bins in {folder} are {made.dtype}, but {model.path} takes {taken}")
