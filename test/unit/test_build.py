"""From a configuration to a network."""

import pytest

from lib.config.load import load_config
from lib.models.build import build_model, network_spec
from lib.models.hrnet import ARCHS, HRNetSpec, StageSpec

TINY = """
MODEL:
  NAME: cls_hrnet
  EXTRA:
    STAGE1: {NUM_MODULES: 1, NUM_RANCHES: 1, BLOCK: BOTTLENECK, NUM_BLOCKS: [1], NUM_CHANNELS: [4]}
    STAGE2: {NUM_MODULES: 1, BLOCK: BASIC, NUM_BLOCKS: [1, 1], NUM_CHANNELS: [2, 4]}
    STAGE3: {NUM_MODULES: 1, BLOCK: BASIC, NUM_BLOCKS: [1, 1, 1], NUM_CHANNELS: [2, 4, 8]}
    STAGE4: {NUM_MODULES: 1, BLOCK: BASIC, NUM_BLOCKS: [1, 1, 1, 1], NUM_CHANNELS: [2, 4, 8, 16]}
"""


@pytest.mark.parametrize("name", ARCHS)
def test_a_name_is_a_row_of_the_table(name):
    assert network_spec(load_config(None, ["MODEL.NAME", name])) == ARCHS[name]


def test_an_unknown_name_gets_the_nearest_and_all_names():
    """Pitfall 5."""
    config = load_config(None, ["MODEL.NAME", "hrnet_w18x"])
    with pytest.raises(ValueError, match="'hrnet_w18x'; did you mean hrnet_w18") as caught:
        network_spec(config)
    assert all(name in str(caught.value) for name in ARCHS)


def test_the_official_form_spells_a_network_out(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    config = load_config(tmp_path / "tiny.yaml")
    assert network_spec(config) == HRNetSpec(
        StageSpec(1, "BOTTLENECK", (1,), (4,)),
        StageSpec(1, "BASIC", (1, 1), (2, 4)),
        StageSpec(1, "BASIC", (1, 1, 1), (2, 4, 8)),
        StageSpec(1, "BASIC", (1, 1, 1, 1), (2, 4, 8, 16)),
    )
    model = build_model(config, 7)
    assert (model.classifier.out_features, model.classifier.in_features) == (7, 2048)
    assert model.training


def test_the_official_name_without_its_stages_says_what_is_missing():
    config = load_config(None, ["MODEL.NAME", "cls_hrnet"])
    with pytest.raises(ValueError, match="MODEL.EXTRA lacks STAGE1, STAGE2, STAGE3, STAGE4"):
        network_spec(config)


def test_a_name_of_ours_with_stages_of_its_own_is_refused(tmp_path):
    """Pitfall 8: what a recipe says must not contradict itself."""
    (tmp_path / "both.yaml").write_text(TINY.replace("cls_hrnet", "hrnet_w18"))
    with pytest.raises(ValueError, match="hrnet_w18 is complete by its name: leave EXTRA out"):
        network_spec(load_config(tmp_path / "both.yaml"))
