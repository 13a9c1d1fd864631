"""What is remarked of a run's optimising, from its configuration."""

from __future__ import annotations

import pytest

from lib.config.load import load_config
from lib.models.hrnet import build_hrnet
from lib.models.padded import PaddedConv2d
from lib.training.optimising import make_trainable, optimising_remarks
from lib.training.start import StartingPoint


@pytest.mark.parametrize(("warmup_epochs", "is_said"), [("0", 0), ("1.5", 0), ("2", 1), ("9", 1)])
def test_a_warm_up_that_takes_the_whole_run_is_said(warmup_epochs: str, is_said: int) -> None:
    settings = ["TRAIN.END_EPOCH", "2", "TRAIN.WARMUP_EPOCHS", warmup_epochs]
    remarks = optimising_remarks(
        load_config(None, [*settings, "TRAIN.SCHEDULE", "cosine"]), StartingPoint()
    )
    assert len(remarks) == is_said
    for remark in remarks:
        assert remark.startswith(f"TRAIN.WARMUP_EPOCHS {warmup_epochs} is all of the 2 epochs")
        assert "TRAIN.SCHEDULE cosine never begins" in remark


@pytest.mark.parametrize("multiple", [1, 16])
def test_widths_are_padded_as_the_configuration_says(multiple: int) -> None:
    config = load_config(None, ["TRAIN.WIDTH_MULTIPLE", str(multiple)])
    network = make_trainable(build_hrnet("hrnet_w18_small_v1", 2), config, processes=None)
    found = {m.multiple for m in network.modules() if isinstance(m, PaddedConv2d)}
    assert found == ({16} if multiple == 16 else set())
