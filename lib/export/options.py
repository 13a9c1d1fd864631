"""What an export may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lib.export.atc_rules import OPSETS as ATC_READS
from lib.export.atc_rules import SAFE_OPSETS

ATC, MODERN = "atc", "modern"
PROFILES = (ATC, MODERN)
DYNAMIC = "dynamic"

# {profile: the opsets it writes}, from the default on. The older exporter's nearest upsampling
# needs 11; the newer exporter starts at 18 and is tried up to 23.
OPSETS: Mapping[str, range] = MappingProxyType(
    {ATC: range(SAFE_OPSETS[0], ATC_READS[-1] + 1), MODERN: range(18, 24)}
)
DYNAMIC_CHECKS = (1, 4, 3, 16)  # batches at which a dynamic export runs before it is kept
FIXED_CHECKS = (1, 4)  # so many images in a fixed batch, and a full one


@dataclass(frozen=True)
class ExportOptions:
    """How to write the ONNX file. Raises ValueError for what a profile cannot do.

    atc: the TorchScript exporter, for Ascend's converter. modern: the exporter on torch.export.
    """

    profile: str = ATC
    batch: int | None = None  # None: any
    opset: int = 0  # 0: the profile's default
    fold_bn: bool = False  # batch norms become part of the convolutions before the export
    no_resize: bool = False  # nearest upsampling as reshape and expand
    simplify: bool = False  # with onnxslim

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            raise ValueError(f"--profile {self.profile} is not one of {', '.join(PROFILES)}")
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"--batch {self.batch}: a number from 1 on, or {DYNAMIC}, is needed")
        allowed = OPSETS[self.profile]
        if self.opset and self.opset not in allowed:
            raise ValueError(
                f"--opset {self.opset} with --profile {self.profile}: {allowed[0]} to "
                f"{allowed[-1]} are possible"
            )

    @property
    def opset_version(self) -> int:
        """The opset to write."""
        return self.opset or OPSETS[self.profile][0]

    @property
    def checked_batches(self) -> tuple[int, ...]:
        """How many images at a time the file is compared with the network on.

        A fixed batch is filled up where they are fewer.
        """
        if self.batch is None:
            return DYNAMIC_CHECKS
        return (*(number for number in FIXED_CHECKS if number < self.batch), self.batch)


def parse_batch(text: str) -> int | None:
    """Return the batch that --batch means, None for `dynamic`. Raises ValueError."""
    if text == DYNAMIC:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--batch {text}: a number, or {DYNAMIC}, is needed") from None
