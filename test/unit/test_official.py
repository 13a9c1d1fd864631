"""The official yaml form of a network."""

import copy

import pytest
import torch
import yaml
from published import PUBLISHED

from lib.models.hrnet import ARCHS, build_hrnet
from lib.models.official import spec_from_official

# name: (blocks and channels of stage 1, width C, modules of stages 2 to 4, blocks a branch)
OFFICIAL = {
    "hrnet_w18_small_v1": (1, 32, 16, (1, 1, 1), 2),
    "hrnet_w18_small_v2": (2, 64, 18, (1, 3, 2), 2),
    **{f"hrnet_w{width}": (4, 64, width, (1, 4, 3), 4) for width in (18, 30, 32, 40, 44, 48, 64)},
}


def _stage_yaml(number: int, text: str) -> str:
    return f"  STAGE{number}:\n" + "".join(f"    {line}\n" for line in text.splitlines())


def _list_yaml(key: str, numbers: list[int]) -> str:
    return f"{key}:\n" + "".join(f"- {number}\n" for number in numbers)


def official_extra(name: str) -> dict[str, object]:
    """EXTRA as the official file of that network has it, NUM_RANCHES of STAGE1 included."""
    blocks, channels, width, modules, branch_blocks = OFFICIAL[name]
    text = "EXTRA:\n"
    if "small" in name:
        text += "  WITH_HEAD: true\n"
    text += _stage_yaml(
        1,
        "NUM_MODULES: 1\nNUM_RANCHES: 1\nBLOCK: BOTTLENECK\n"
        + _list_yaml("NUM_BLOCKS", [blocks])
        + _list_yaml("NUM_CHANNELS", [channels])
        + "FUSE_METHOD: SUM",
    )
    for number in (2, 3, 4):
        text += _stage_yaml(
            number,
            f"NUM_MODULES: {modules[number - 2]}\nNUM_BRANCHES: {number}\nBLOCK: BASIC\n"
            + _list_yaml("NUM_BLOCKS", [branch_blocks] * number)
            + _list_yaml("NUM_CHANNELS", [width * 2**branch for branch in range(number)])
            + "FUSE_METHOD: SUM",
        )
    return yaml.safe_load(text)["EXTRA"]


def changed(stage: str, **values: object) -> dict[str, object]:
    """W18's EXTRA with other values in one stage; None takes a key out."""
    extra = copy.deepcopy(official_extra("hrnet_w18"))
    extra[stage].update(values)
    extra[stage] = {key: value for key, value in extra[stage].items() if value is not None}
    return extra


@pytest.mark.parametrize("name", OFFICIAL)
def test_each_official_description_is_a_row_of_the_table(name):
    extra = official_extra(name)
    before = copy.deepcopy(extra)
    assert spec_from_official(extra) == ARCHS[name]
    assert extra == before


def test_all_nine_are_covered():
    assert set(OFFICIAL) == set(PUBLISHED)


@pytest.mark.parametrize("key", ["NUM_BRANCHES", "NUM_RANCHES"])
def test_both_spellings_of_the_number_of_branches_are_read_and_checked(key):
    good = changed("STAGE2", NUM_BRANCHES=None)
    good["STAGE2"][key] = 2
    assert spec_from_official(good) == ARCHS["hrnet_w18"]
    good["STAGE2"][key] = 3
    with pytest.raises(ValueError, match=f"STAGE2.{key} is 3, but NUM_BLOCKS .* has 2"):
        spec_from_official(good)


def test_without_a_number_of_branches_the_lists_say_it():
    assert spec_from_official(changed("STAGE3", NUM_BRANCHES=None)) == ARCHS["hrnet_w18"]


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("STAGE2", {"FUSE_METHOD": "CAT"}, r"EXTRA\.STAGE2\.FUSE_METHOD 'CAT' must be SUM"),
        ("STAGE2", {"BLOCK": "BASIK"}, r"EXTRA\.STAGE2: block 'BASIK' .* BASIC, BOTTLENECK"),
        ("STAGE3", {"BLOCK": None}, r"EXTRA\.STAGE3 lacks BLOCK"),
        ("STAGE3", {"NUM_MODULES": 0}, r"EXTRA\.STAGE3: num_modules .* not 0"),
        ("STAGE3", {"NUM_MODULES": "4"}, r"EXTRA\.STAGE3: num_modules .* not '4'"),
        ("STAGE4", {"NUM_BLOCKS": 4}, r"EXTRA\.STAGE4\.NUM_BLOCKS .* list .* not 4"),
        ("STAGE4", {"NUM_CHANNELS": [18, 36, 72]}, r"STAGE4\.NUM_BRANCHES is 4, but NUM_CHANNELS"),
        ("STAGE4", {"NUM_CHANNELS": [18, 36, 72, -1]}, r"EXTRA\.STAGE4: num_channels"),
        ("STAGE4", {"NUM_CHANELS": [1]}, r"NUM_CHANELS; did you mean NUM_CHANNELS\?"),
        (
            "STAGE2",
            {"NUM_BRANCHES": 1, "NUM_BLOCKS": [4], "NUM_CHANNELS": [18]},
            "EXTRA: stage2 has 2 branches, not 1",
        ),
    ],
)
def test_a_bad_stage_is_refused_in_one_line_that_names_the_key(stage, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        spec_from_official(changed(stage, **values))
    assert "\n" not in str(caught.value)


def test_missing_unknown_and_misshapen_stages_are_refused():
    extra = official_extra("hrnet_w18")
    without = {key: value for key, value in extra.items() if key != "STAGE3"}
    with pytest.raises(ValueError, match=r"MODEL\.EXTRA lacks STAGE3"):
        spec_from_official(without)
    with pytest.raises(ValueError, match=r"MODEL\.EXTRA lacks STAGE1, STAGE2, STAGE3, STAGE4"):
        spec_from_official({})
    with pytest.raises(ValueError, match=r"unknown key MODEL\.EXTRA\.STAGE5"):
        spec_from_official(extra | {"STAGE5": {}})
    with pytest.raises(ValueError, match=r"MODEL\.EXTRA\.STAGE2 must hold the keys"):
        spec_from_official(extra | {"STAGE2": [1, 2]})
    with pytest.raises(ValueError, match="WITH_HEAD must be true"):
        spec_from_official(extra | {"WITH_HEAD": False})


def test_the_described_network_has_the_weights_of_the_named_one():
    with torch.device("meta"):
        described = build_hrnet(spec_from_official(official_extra("hrnet_w18_small_v2")))
        named = build_hrnet("hrnet_w18_small_v2")
    assert {name: weight.shape for name, weight in described.state_dict().items()} == {
        name: weight.shape for name, weight in named.state_dict().items()
    }
