"""The record of network, recipe and class names that a weight file carries."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from lib.models.weights.facts import KEY, facts_text, facts_text_in, read_facts, with_facts

FACTS = {"arch": "hrnet_w18", "recipe": {"crop": 64}, "class_names": ["dog", "cat"]}
WHERE = "w.pth"


def test_bare_weights_carry_the_record_and_load_as_before(tmp_path: Path) -> None:
    """Fault S3: an attribute, so that the file stays a mapping of weights and nothing else."""
    state = torch.nn.BatchNorm2d(2).state_dict()
    torch.save(with_facts(state, FACTS), tmp_path / "w.pth")
    read = torch.load(tmp_path / "w.pth", weights_only=True)
    assert read.keys() == state.keys() and read._metadata == state._metadata
    torch.nn.BatchNorm2d(2).load_state_dict(read, strict=True)
    assert read_facts(facts_text_in(read), where=WHERE) == FACTS
    assert not hasattr(state, KEY)


def test_a_record_beside_the_weights_is_found_and_none_is_an_empty_one() -> None:
    content = {"state_dict": {}, KEY: facts_text({**FACTS, "arch": None})}
    assert read_facts(facts_text_in(content), where=WHERE) == {
        key: FACTS[key] for key in ("recipe", "class_names")
    }
    for without in ({}, OrderedDict(), [1], None):
        assert read_facts(facts_text_in(without), where=WHERE) == {}


@pytest.mark.parametrize(
    "record, expected",
    [
        (5, "it is 5, and a text is needed"),
        ("{", "is damaged or no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("5", "it is 5, and a mapping is needed"),
        ({"arch": 5}, "arch is 5, and a text"),
        ({"recipe": [1]}, "recipe is .*, and a mapping"),
        ({"class_names": "cat"}, "class_names is 'cat', and a list"),
        ({"class_names": []}, "class_names is no list of class names: it is empty"),
        ({"class_names": ["a", 1]}, "class_names\\[1\\] is 1, and a text"),
        ({"class_names": ["a", "a"]}, "a name is there twice"),
        ({"arch": ["\x1b[31m\n"]}, "arch is .*x1b"),
    ],
)
def test_a_record_of_another_form_is_refused_in_one_line(record: object, expected: str) -> None:
    """Fault R6."""
    text = json.dumps(record) if isinstance(record, dict) else record
    with pytest.raises(ValueError, match=f"^w.pth: its record 'hrnet'.*{expected}") as error:
        read_facts(text, where=WHERE)
    assert str(error.value).isprintable() and len(str(error.value)) < 200
