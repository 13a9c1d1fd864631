"""What the programs take from environment variables."""

import argparse
import os

import _common
import pytest

from lib.runtime.environment import RankInfo, num_cores, read_environment

TORCHRUN = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


def test_an_empty_environment_is_one_process_without_wishes():
    environment = read_environment({})
    assert environment.ranks == RankInfo(0, 0, 1, 1, 0)
    assert environment.ranks.is_main
    assert not environment.launched
    assert environment.ascend_device_id is None
    assert not (environment.allow_fp32 or environment.allow_hf32 or environment.profile)
    assert environment.profile_start_step == 10


def test_the_processes_own_variables_are_the_default(monkeypatch):
    monkeypatch.setenv("ASCEND_DEVICE_ID", "6")
    assert read_environment().ascend_device_id == 6


def test_ranks_come_from_the_launcher():
    """Pitfall 24."""
    environment = read_environment({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert environment.ranks == RankInfo(3, 1, 4, 2, restart_count=2)
    assert environment.launched
    assert not environment.ranks.is_main


@pytest.mark.parametrize("name", TORCHRUN)
@pytest.mark.parametrize("value", [None, ""])
def test_a_partial_environment_is_an_error_that_names_what_is_missing(name, value):
    """Pitfall 24."""
    variables = {**TORCHRUN, name: value}
    if value is None:
        del variables[name]
    with pytest.raises(ValueError, match=rf"but {name} missing .* with torchrun") as caught:
        read_environment(variables)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"])
def test_one_rank_variable_alone_is_an_error(name):
    """Pitfall 24."""
    with pytest.raises(ValueError, match=f"{name} set but"):
        read_environment({name: "1"})


def test_an_address_alone_means_nothing():
    """Pitfall 24: MASTER_ADDR is often set on a cluster's machines; it makes no process group."""
    environment = read_environment({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"})
    assert environment.ranks == RankInfo()


@pytest.mark.parametrize(
    "changes",
    [
        {"RANK": "4"},
        {"LOCAL_RANK": "2"},
        {"WORLD_SIZE": "0"},
        {"LOCAL_WORLD_SIZE": "5"},
    ],
)
def test_a_rank_outside_its_size_is_an_error(changes):
    """Pitfall 24."""
    with pytest.raises(ValueError, match="ranks count from 0 to size - 1"):
        read_environment({**TORCHRUN, **changes})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RANK", "first"),
        ("RANK", "-1"),
        ("WORLD_SIZE", "4.0"),
        ("TORCHELASTIC_RESTART_COUNT", "x"),
    ],
)
def test_a_rank_that_is_no_whole_number_is_named(name, text):
    with pytest.raises(ValueError, match=f"{name}='{text}': a whole number >= 0"):
        read_environment({**TORCHRUN, name: text})


@pytest.mark.parametrize("name", ["ALLOW_FP32", "ALLOW_HF32"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", False), ("", False), ("false", False), ("False", False), ("no", False),
        ("off", False), ("1", True), ("true", True), ("TRUE", True), ("yes", True), (" on ", True),
    ],
)  # fmt: skip
def test_a_switch_of_zero_means_no(name, text, expected):
    """Pitfall 9: `ALLOW_FP32=0` means no."""
    environment = read_environment({name: text})
    assert getattr(environment, name.lower()) is expected


def test_a_switch_that_is_neither_yes_nor_no_is_an_error():
    """Pitfall 9."""
    with pytest.raises(ValueError, match="ALLOW_FP32='maybe': one of 1, true"):
        read_environment({"ALLOW_FP32": "maybe"})


def _options(**given):
    return argparse.Namespace(**{"fp32": False, "hf32": False, "precision": None, **given})


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({"fp32": True, "hf32": True}, {}),
        ({"fp32": True}, {"ALLOW_HF32": "1"}),
        ({"hf32": True}, {"ALLOW_FP32": "1"}),
        ({}, {"ALLOW_FP32": "1", "ALLOW_HF32": "1"}),
        ({"precision": "fp16"}, {"ALLOW_FP32": "1"}),
    ],
)
def test_two_precisions_at_once_are_an_error(options, variables):
    """Pitfall 9: fp32 and hf32 together is an error, whoever asks."""
    with pytest.raises(ValueError, match="asked for together .* choose one"):
        _common._asked_precision(_options(**options), read_environment(variables))


@pytest.mark.parametrize(
    ("options", "variables", "precision"),
    [
        ({}, {}, None),
        ({}, {"ALLOW_FP32": "0", "ALLOW_HF32": "0"}, None),
        ({"hf32": True}, {"ALLOW_FP32": "0"}, "hf32"),
        ({"fp32": True}, {"ALLOW_FP32": "1"}, "fp32"),
        ({"precision": "hf32"}, {"ALLOW_HF32": "1"}, "hf32"),
        ({}, {"ALLOW_HF32": "yes"}, "hf32"),
    ],
)
def test_one_precision_asked_for_in_any_way_is_taken(options, variables, precision):
    """Pitfall 9."""
    asked = _common._asked_precision(_options(**options), read_environment(variables))
    assert asked == precision


@pytest.mark.parametrize(("text", "expected"), [("", None), ("0", 0), ("7", 7)])
def test_the_ascend_device_is_optional(text, expected):
    assert read_environment({"ASCEND_DEVICE_ID": text}).ascend_device_id == expected


@pytest.mark.parametrize("text", ["x", "-1", "1.5"])
def test_an_ascend_device_that_is_no_number_is_named(text):
    with pytest.raises(ValueError, match=f"ASCEND_DEVICE_ID='{text}'"):
        read_environment({"ASCEND_DEVICE_ID": text})


@pytest.mark.parametrize(("text", "expected"), [("", False), ("0", False), ("GE", True)])
def test_profiling_is_on_where_a_type_is_named(text, expected):
    assert read_environment({"PROFILE_TYPE": text}).profile is expected


@pytest.mark.parametrize(("text", "expected"), [("", 10), ("3", 3)])
def test_profiling_begins_at_a_step(text, expected):
    assert read_environment({"PROFILE_START_STEP": text}).profile_start_step == expected


def test_cores_are_those_this_process_may_use():
    assert 1 <= num_cores() <= (os.cpu_count() or 1)
