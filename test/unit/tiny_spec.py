"""The description of a network that is built and computed in moments, shared by tests."""

from lib.models.hrnet import HRNetSpec, StageSpec

TINY = HRNetSpec(
    StageSpec(1, "BOTTLENECK", (1,), (8,)),
    StageSpec(1, "BASIC", (1, 1), (4, 8)),
    StageSpec(1, "BASIC", (1, 1, 1), (4, 8, 16)),
    StageSpec(1, "BASIC", (1, 1, 1, 1), (4, 8, 16, 32)),
)
