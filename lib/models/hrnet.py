"""HRNet for image classification: the HRNetV2 body with a classification head (HRNet-Wx-C).

Wang et al., Deep High-Resolution Representation Learning for Visual Recognition, TPAMI 2020,
https://arxiv.org/abs/1908.07919, section 3; its head as in HRNet/HRNet-Image-Classification.

A map of high resolution is kept from the first stage to the last. Each later stage adds a
branch of half the resolution and twice the width C, and fuses all branches again and again:

    part      stride of its maps    channels of its maps
    stem      4                     64
    stage1    4                     256                  (bottleneck blocks)
    stage2    4  8                  C  2C
    stage3    4  8  16              C  2C  4C
    stage4    4  8  16  32          C  2C  4C  8C
    head      4  8  16  32          128  256  512  1024  (each added to the next smaller map)
              32                    2048                 (averaged, then classified)

The attribute names are the format of the published weights, so they stay as they are.
"""

import difflib
import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEM_CHANNELS = 64
HEAD_WIDTHS = (128, 256, 512, 1024)  # one a branch
NUM_FEATURES = 2048  # what the classifier sees of an image
INPUT_MULTIPLE = 32  # a side of this length is one pixel of the smallest branch
EXPANSION: Mapping[str, int] = MappingProxyType({"BASIC": 1, "BOTTLENECK": 4})


@dataclass(frozen=True)
class StageSpec:
    """One stage: `num_modules` times (residual blocks on each branch, then a fusion of all).

    `num_blocks[j]` blocks of `num_channels[j]` channels stand on branch j, whose stride is
    4 * 2**j; a bottleneck's output is four times as wide. Raises ValueError.
    """

    num_modules: int
    block: str
    num_blocks: tuple[int, ...]
    num_channels: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.block not in EXPANSION:
            raise ValueError(f"block {self.block!r} is not one of {', '.join(EXPANSION)}")
        for field in ("num_blocks", "num_channels"):
            counts = getattr(self, field)
            if not isinstance(counts, tuple) or not counts or not all(map(_is_count, counts)):
                raise ValueError(f"{field} must be a tuple of whole numbers >= 1, not {counts!r}")
        if not _is_count(self.num_modules):
            raise ValueError(f"num_modules must be a whole number >= 1, not {self.num_modules!r}")
        if len(self.num_blocks) != len(self.num_channels):
            both = f"num_blocks {self.num_blocks} and num_channels {self.num_channels}"
            raise ValueError(f"{both} must have one number a branch each")

    @property
    def num_branches(self) -> int:
        return len(self.num_channels)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each branch's map, as other parts of the network see them."""
        return tuple(channels * EXPANSION[self.block] for channels in self.num_channels)


@dataclass(frozen=True)
class HRNetSpec:
    """A whole network: stage k has k branches, and stage 1 is one module. Raises ValueError."""

    stage1: StageSpec
    stage2: StageSpec
    stage3: StageSpec
    stage4: StageSpec

    def __post_init__(self) -> None:
        stages = (self.stage1, self.stage2, self.stage3, self.stage4)
        for number, stage in enumerate(stages, start=1):
            if stage.num_branches != number:
                raise ValueError(f"stage{number} has {number} branches, not {stage.num_branches}")
        if self.stage1.num_modules != 1:
            raise ValueError(f"stage1 is one module, not {self.stage1.num_modules}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _spec(
    width: int,
    stage1: tuple[int, int] = (4, 64),
    *,
    num_modules: tuple[int, int, int] = (1, 4, 3),
    num_blocks: int = 4,
) -> HRNetSpec:
    """Stage 1 as (blocks, channels); stages 2 to 4 of basic blocks, each branch twice as wide."""
    widths = (width, 2 * width, 4 * width, 8 * width)
    later_stages = (
        StageSpec(modules, "BASIC", (num_blocks,) * branches, widths[:branches])
        for branches, modules in enumerate(num_modules, start=2)
    )
    return HRNetSpec(StageSpec(1, "BOTTLENECK", stage1[:1], stage1[1:]), *later_stages)


# The published networks, named after the width C (small_v1 is narrower than its name says).
ARCHS: Mapping[str, HRNetSpec] = MappingProxyType(
    {
        "hrnet_w18_small_v1": _spec(16, (1, 32), num_modules=(1, 1, 1), num_blocks=2),
        "hrnet_w18_small_v2": _spec(18, (2, 64), num_modules=(1, 3, 2), num_blocks=2),
        "hrnet_w18": _spec(18),
        "hrnet_w30": _spec(30),
        "hrnet_w32": _spec(32),
        "hrnet_w40": _spec(40),
        "hrnet_w44": _spec(44),
        "hrnet_w48": _spec(48),
        "hrnet_w64": _spec(64),
    }
)


def conv_bn(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int = 3,
    stride: int = 1,
    bias: bool = False,
    relu: bool = True,
) -> nn.Sequential:
    """Convolution that keeps H x W (or halves it with stride 2), batch norm and, if asked, ReLU."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out_channels)]
    if relu:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _shortcut(in_channels: int, out_channels: int) -> nn.Module:
    """The identity where the width allows it; the published weights call it `downsample`."""
    if in_channels == out_channels:
        return nn.Identity()
    return conv_bn(in_channels, out_channels, kernel_size=1, relu=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: N x in_channels x H x W -> N x channels x H x W."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y.add_(self.downsample(x)))  # in place: y is nobody else's


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut: N x in_channels x H x W -> N x 4*channels x H x W."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        out_channels = channels * EXPANSION["BOTTLENECK"]
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y.add_(self.downsample(x)))


def residual_layer(stage: StageSpec, branch: int, *, in_channels: int) -> nn.Sequential:
    """The residual blocks of one branch, of which only the first may change the width.

    He et al., Deep Residual Learning for Image Recognition, 2015, section 3.3 and figure 5.
    """
    block_class = BasicBlock if stage.block == "BASIC" else Bottleneck
    inputs = [in_channels] + [stage.widths[branch]] * (stage.num_blocks[branch] - 1)
    return nn.Sequential(*(block_class(width, stage.num_channels[branch]) for width in inputs))


def fuse_path(widths: Sequence[int], *, source: int, target: int) -> nn.Module:
    """Bring branch `source`'s map to the shape of branch `target`'s."""
    if source == target:
        return nn.Identity()
    if source > target:  # from a smaller map: fit the width, then repeat each pixel
        project = conv_bn(widths[source], widths[target], kernel_size=1, relu=False)
        return nn.Sequential(*project, nn.Upsample(scale_factor=2 ** (source - target)))
    # From a larger map: halve it again and again; only the last step changes the width.
    steps = [conv_bn(widths[source], widths[source], stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, conv_bn(widths[source], widths[target], stride=2, relu=False))


class FuseSum(nn.ModuleList):
    """All branches' maps, each along its own path, summed to the new map of one branch (3.2)."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        paths = (path(x) for path, x in zip(self, maps, strict=True))  # one map at a time in memory
        total = next(paths) + next(paths)  # the first may be a map that others read too
        return F.relu(functools.reduce(torch.Tensor.add_, paths, total), inplace=True)


class HighResolutionModule(nn.Module):
    """Residual blocks on each branch (paper, 3.1), then each becomes a sum of all (3.2)."""

    def __init__(self, stage: StageSpec):
        super().__init__()
        indices = range(stage.num_branches)
        self.branches = nn.ModuleList(
            residual_layer(stage, j, in_channels=stage.widths[j]) for j in indices
        )
        self.fuse_layers = nn.ModuleList(
            FuseSum(fuse_path(stage.widths, source=j, target=i) for j in indices) for i in indices
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map j is N x widths[j] x H/2**j x W/2**j, in and out; the given list stays as it is."""
        maps = _each(self.branches, maps)
        return [fuse(maps) for fuse in self.fuse_layers]


class Transition(nn.ModuleList):
    """The way into a stage: fits the old branches' widths, and adds a branch of half the size."""

    def __init__(self, old_widths: Sequence[int], new_widths: Sequence[int]):
        *kept_widths, added_width = new_widths
        fits = [
            nn.Identity() if old == new else conv_bn(old, new)
            for old, new in zip(old_widths, kept_widths, strict=True)
        ]
        # One level deeper than the others in the published weights: `transition1.1.0.0.weight`.
        added = nn.Sequential(conv_bn(old_widths[-1], added_width, stride=2))
        super().__init__([*fits, added])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """One map more than given: the new branch starts from the smallest old one."""
        return _each(self, [*maps, maps[-1]])


def _each(layers: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    return [layer(x) for layer, x in zip(layers, maps, strict=True)]


class HRNet(nn.Module):
    """The classifier: float images N x 3 x H x W -> logits N x num_classes.

    H and W are multiples of 32; pixels are normalised with ImageNet's mean and deviation.
    """

    def __init__(self, spec: HRNetSpec, num_classes: int = 1000):
        super().__init__()
        if not _is_count(num_classes):
            raise ValueError(f"num_classes must be a whole number >= 1, not {num_classes!r}")
        self.conv1 = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.conv2 = nn.Conv2d(STEM_CHANNELS, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_layer(spec.stage1, 0, in_channels=STEM_CHANNELS)
        self.transition1 = Transition(spec.stage1.widths, spec.stage2.widths)
        self.stage2 = _stage(spec.stage2)
        self.transition2 = Transition(spec.stage2.widths, spec.stage3.widths)
        self.stage3 = _stage(spec.stage3)
        self.transition3 = Transition(spec.stage3.widths, spec.stage4.widths)
        self.stage4 = _stage(spec.stage4)
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(width, head_width // EXPANSION["BOTTLENECK"]))
            for width, head_width in zip(spec.stage4.widths, HEAD_WIDTHS, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            conv_bn(old, new, stride=2, bias=True) for old, new in itertools.pairwise(HEAD_WIDTHS)
        )
        self.final_layer = conv_bn(HEAD_WIDTHS[-1], NUM_FEATURES, kernel_size=1, bias=True)
        self.classifier = nn.Linear(NUM_FEATURES, num_classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits N x num_classes. Raises ValueError for a shape it cannot take."""
        _check_shape(images)
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))  # N x 64 x H/4 x W/4
        maps = [self.layer1(x)]
        maps = self.stage2(self.transition1(maps))
        maps = self.stage3(self.transition2(maps))
        maps = self.stage4(self.transition3(maps))
        y, *others = _each(self.incre_modules, maps)
        for downsample, x in zip(self.downsamp_modules, others, strict=True):
            y = x + downsample(y)
        y = self.final_layer(y)  # N x 2048 x H/32 x W/32
        return self.classifier(F.adaptive_avg_pool2d(y, 1).flatten(1))


def _stage(stage: StageSpec) -> nn.Sequential:
    return nn.Sequential(*(HighResolutionModule(stage) for _ in range(stage.num_modules)))


def _initialise(module: nn.Module) -> None:
    """He et al., Delving Deep into Rectifiers, 2015, section 2.2 (backward case)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def _check_shape(images: Tensor) -> None:
    if torch.jit.is_tracing():  # an export would warn that the answer becomes a constant
        return
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != 3 or any(side % INPUT_MULTIPLE for side in shape[2:]):
        wanted = f"N x 3 x H x W with H and W multiples of {INPUT_MULTIPLE}, such as 224 x 224"
        raise ValueError(f"images must have the shape {wanted}; theirs is {shape}")


def find_spec(arch: str) -> HRNetSpec:
    """Return a published network's description. Raises ValueError for a name not in ARCHS."""
    arch = {"hrnet_w18_small": "hrnet_w18_small_v1"}.get(arch, arch)  # timm's name of it
    if arch not in ARCHS:
        near = difflib.get_close_matches(arch, ARCHS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown network {arch!r}; did you mean {near}? All: {', '.join(ARCHS)}")
    return ARCHS[arch]


def build_hrnet(arch: str | HRNetSpec, num_classes: int = 1000) -> HRNet:
    """Return a fresh network of a name or a description. Raises ValueError where it is neither."""
    return HRNet(find_spec(arch) if isinstance(arch, str) else arch, num_classes)
