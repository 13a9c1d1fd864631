"""Class names and input recipes that a checkpoint states, or a file beside it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib.config.load import load_config
from lib.config.recipe import Recipe
from lib.models.build import build_model
from lib.models.weights.facts import KEY, facts_text, with_facts
from lib.models.weights.inspect import convert, inspect
from lib.models.weights.load import WeightFile, read_weights

WEIGHTS = {"classifier.weight": torch.ones(2, 4), "classifier.bias": torch.ones(2)}
DOG_CAT = ("dog", "cat")  # against the order of folders
TIMM = {
    "input_size": (3, 288, 288),
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "crop_pct": 0.95,
}
IMAGENETS = "123.675, 116.28, 103.53"  # mean of levels, as OpenMMLab writes it
TIMMS_RECIPE = Recipe(
    crop=288, resize=303, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)


def read(beside: object, folder: Path) -> WeightFile:
    torch.save({"state_dict": WEIGHTS, **dict(beside)}, folder / "x.pth")  # type: ignore[call-overload]
    return read_weights(folder / "x.pth")


@pytest.mark.parametrize(
    "place, stated",
    [
        ("class_to_idx", {"class_to_idx": {"cat": 1, "dog": 0}}),
        ("class_to_idx", {"class_to_idx": {"cat": np.int64(1), "dog": np.int64(0)}}),
        ("idx_to_class", {"idx_to_class": {0: "dog", 1: "cat"}}),
        ("idx_to_class", {"idx_to_class": {"1": "cat", "0": "dog"}}),
        ("class_names", {"class_names": ["dog", "cat"]}),
        ("class_names", {"class_names": np.array(["dog", "cat"])}),
        ("classes", {"classes": ("dog", "cat")}),
        ("meta.CLASSES", {"meta": {"CLASSES": ("dog", "cat")}}),
        ("meta.dataset_meta.classes", {"meta": {"dataset_meta": {"classes": ["dog", "cat"]}}}),
        ("hparams.class_to_idx", {"hparams": {"class_to_idx": {"cat": 1, "dog": 0}}}),
        ("args.class_names", {"args": argparse.Namespace(class_names=["dog", "cat"])}),
        ("config.label2id", {"config": {"label2id": {"dog": 0, "cat": 1}}}),
        ("label_names", {"label_names": ["dog", "cat"]}),
        ("pretrained_cfg.label_names", {"pretrained_cfg": {"label_names": ["dog", "cat"]}}),
    ],
)  # fmt: skip
def test_class_names_are_read_wherever_they_stand(
    place: str, stated: dict[str, object], tmp_path: Path
) -> None:
    """Fault S2."""
    file = read(stated, tmp_path)
    assert (file.class_names, file.names_source) == (DOG_CAT, f"{place} in the file")


@pytest.mark.parametrize(
    "stated",
    [
        {"class_names": None},
        {"classes": 2},
        {"classes": [0, 1]},
        {"class_names": "classes.txt"},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}},
    ],
)
def test_entries_that_hold_something_else_are_no_class_names(
    stated: dict[str, object], tmp_path: Path
) -> None:
    """Fault S2."""
    file = read(stated, tmp_path)
    assert (file.class_names, file.names_source, file.notes) == (None, "", ())


def test_names_that_may_be_of_another_network_are_not_used_and_that_is_said(
    tmp_path: Path,
) -> None:
    """Fault S2."""
    file = read({"meta": {"classes": ["one", "two", "three"]}}, tmp_path)
    assert file.class_names is None
    assert file.notes == (
        "meta.classes in the file names 3 classes and the classifier has 2: not used",
    )


@pytest.mark.parametrize(
    "stated, expected",
    [
        ({"class_to_idx": {"a": 0, "b": 5}}, "class_to_idx states no class names: the number 5"),
        ({"idx_to_class": {1: "a", 2: "b"}}, "idx_to_class states no class names: the number 2"),
        ({"class_names": ["a", "a"]}, "class_names states no class names: the name 'a' is there 2"),
        ({"class_names": ["a", 1]}, "'1' stands for the name"),
        ({"meta": {"label2id": {"a": "b", "c": 1}}}, "meta.label2id states no class names"),
        (
            {"class_to_idx": {"dog": 0, "cat": 1}, "meta": {"classes": ["cat", "dog"]}},
            "contradicts itself: class 0 is 'dog' by class_to_idx in the file and 'cat' by "
            "meta.classes in the file",
        ),
        (
            {"class_names": ["dog", "cat"], KEY: facts_text({"class_names": ["dog", "cat", "x"]})},
            "contradicts itself: class 2 is 'x' by the record in the file and None by class_names",
        ),
    ],
)
def test_statements_of_another_form_and_contradictions_are_refused(
    stated: dict[str, object], expected: str, tmp_path: Path
) -> None:
    """Fault S2."""
    with pytest.raises(ValueError) as error:
        read(stated, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'x.pth'}") and expected in str(error.value)
    assert str(error.value).isprintable()


def test_a_list_beside_the_weights_may_not_contradict_them(tmp_path: Path) -> None:
    """Fault S2."""
    stated = {"class_to_idx": {"dog": 0, "cat": 1}}
    (tmp_path / "classes.json").write_text(json.dumps({"dog": 0, "cat": 1}))
    assert read(stated, tmp_path).names_source == "class_to_idx in the file"
    assert read({}, tmp_path).names_source == "classes.json beside it"
    (tmp_path / "classes.json").write_text(json.dumps({"dog": 1, "cat": 0}))
    with pytest.raises(ValueError, match="'cat' by classes.json beside it"):
        read(stated, tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"dog": 1, "cat": 0, "emu": 2}))
    file = read(stated, tmp_path)
    assert file.class_names == DOG_CAT
    assert file.notes == (
        "classes.json beside it names 3 classes and the classifier has 2: not used",
    )


@pytest.mark.parametrize("form", ["safetensors", "beside", "bare"])
def test_the_record_of_our_own_files_is_read_from_each_form(form: str, tmp_path: Path) -> None:
    """Faults S2 and S3."""
    facts = {"arch": "hrnet_w18", "recipe": {"crop": 64}, "class_names": list(DOG_CAT)}
    path = tmp_path / "x"
    if form == "safetensors":
        save_file(WEIGHTS, path, metadata={KEY: facts_text(facts), "format": "pt"})
    elif form == "beside":
        torch.save({"state_dict": WEIGHTS, KEY: facts_text(facts)}, path)
    else:
        torch.save(with_facts(WEIGHTS, facts), path)
    file = read_weights(path)
    assert file.facts == facts and file.class_names == DOG_CAT
    assert file.names_source == "the record in the file"


def test_timms_description_is_a_recipe_and_names_too(tmp_path: Path) -> None:
    """Faults S2 and S3: in the file, or in config.json beside one of the hub."""
    config = {"architecture": "hrnet_w18", "num_classes": 2, "label_names": list(DOG_CAT)}
    (tmp_path / "config.json").write_text(json.dumps({**config, "pretrained_cfg": TIMM}))
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    file = read_weights(tmp_path / "model.safetensors")
    assert file.names_source == "label_names in config.json beside it"
    assert file.class_names == DOG_CAT
    assert Recipe.from_json(file.facts["recipe"], where="x") == TIMMS_RECIPE
    file = read({"pretrained_cfg": {**TIMM, "mean": (0, 0, 0)}, **config}, tmp_path)
    assert Recipe.from_json(file.facts["recipe"], where="x").mean == (0, 0, 0)
    (tmp_path / "config.json").unlink()
    for other in ({"crop_pct": None}, {"crop_mode": "squash"}, {"input_size": (3, 64, 32)}):
        file = read({"pretrained_cfg": {**TIMM, **other}}, tmp_path)
        assert file.facts == {}
        assert any("in the file states an input recipe that is not whole" in n for n in file.notes)


def test_a_recipe_beside_weights_that_is_not_used_is_said(tmp_path: Path) -> None:
    """Fault S: mean and size were dropped as if nothing had stated them."""
    stated = {"pretrained_cfg": {**TIMM, "interpolation": "random"}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    file = read({}, tmp_path)
    assert file.facts == {} and "pretrained_cfg in config.json beside it" in "".join(file.notes)
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"url": ""}}))
    assert not read({}, tmp_path).notes
    (tmp_path / "config.json").write_text("[5]")
    assert (
        "config.json: it is [5], and a mapping is needed: not used" in read({}, tmp_path).notes[0]
    )


MMENGINES_TEXT = """
model = dict(type='ImageClassifier', backbone=dict(type='HRNet', arch='w18'))
data_preprocessor = dict(num_classes=2, mean=[{mean}], std=[58.395, 57.12, 57.375], {to_rgb})
"""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((IMAGENETS, "to_rgb=True"), ""),
        (("127.5, 127.5, 127.5", "to_rgb=True"), "meta.cfg states a mean of (127.5, 127.5, 127.5)"),
        ((IMAGENETS, "to_rgb=False"), "57.375) in BGR: not used"),
        ((IMAGENETS, ""), "in BGR"),
        (("0.5, 'x'", "to_rgb=True"), ""),
        ((IMAGENETS, "to_rgb="), ""),  # no Python
        ({"args": argparse.Namespace(mean=[0.5] * 3, std=[0.5] * 3)}, "args states a mean of (0.5"),
        ({"args": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}}, ""),
        ({"args": {"mean": None, "std": 1}}, ""),
    ],
)
def test_another_normalization_stated_in_passing_is_told(
    content: dict[str, object] | tuple[str, str], said: str, tmp_path: Path
) -> None:
    """Fault S5: mmengine's configuration, a text, said which numbers the network was fed."""
    if isinstance(content, tuple):
        mean, to_rgb = content
        content = {"meta": {"cfg": MMENGINES_TEXT.format(mean=mean, to_rgb=to_rgb)}}
    notes = " ".join(read(content, tmp_path).notes)
    assert said in notes if said else not notes


def test_a_converted_file_says_all_that_is_known(tiny_yaml: Path, tmp_path: Path) -> None:
    """Fault S2: the order of the classes above all; from form to form."""
    config = load_config(tiny_yaml)
    weights = build_model(config, 2).state_dict()
    content = {"state_dict": weights, "class_to_idx": {"dog": 0, "cat": 1}, "pretrained_cfg": TIMM}
    source = tmp_path / "x.pth"
    torch.save(content, source)
    said = convert(source, tmp_path / "a.safetensors", config)
    assert said.endswith("; with their 2 class names (class_to_idx in the file)")
    convert(tmp_path / "a.safetensors", tmp_path / "b.pth", config)
    for name in ("a.safetensors", "b.pth"):
        file = read_weights(tmp_path / name)
        assert (file.class_names, file.names_source) == (DOG_CAT, "the record in the file")
        assert Recipe.from_json(file.facts["recipe"], where="x") == TIMMS_RECIPE
    assert all(torch.equal(file.weights[name], weights[name]) for name in weights)
    lines = inspect(tmp_path / "b.pth")
    assert "classes    2, their names are known (the record in the file)" in lines
    assert f"input      {TIMMS_RECIPE}" in lines
    torch.save(weights, source)
    convert(source, tmp_path / "d.pth", config)
    bare = torch.load(tmp_path / "d.pth", weights_only=True)
    assert bare.keys() == weights.keys()
    file = read_weights(tmp_path / "d.pth")
    assert file.class_names is None and file.facts["recipe"]["crop"] == config.MODEL.IMAGE_SIZE[0]
    with pytest.raises(ValueError, match="is a file to read"):
        convert(source, source, config)
    torch.save({"state_dict": weights, "class_names": ["a", "b", "c"]}, source)
    with pytest.raises(ValueError, match="2 classes, and class_names in the file names 3"):
        convert(source, tmp_path / "e.pth", config)
    assert not (tmp_path / "e.pth").exists()
