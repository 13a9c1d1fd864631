"""HRNets with the names, shapes and layouts of mmpretrain and of PaddleClas, to compare with.

Built after what their sources say, without them: a network here computes by its own names.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_MODULES = {2: 1, 3: 4, 4: 3}
NUM_BLOCKS = 4
HEAD = (128, 256, 512, 1024)


class Named(nn.Module):
    """Children under given names, run one after the other."""

    def __init__(self, **children: nn.Module):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


class PaddleNorm(nn.Module):
    """Paddle's BatchNorm, in evaluation."""

    def __init__(self, width: int):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.register_buffer("_mean", torch.empty(width))
        self.register_buffer("_variance", torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self._mean, self._variance, self.weight, self.bias)


class PaddleLinear(nn.Module):
    """Paddle's Linear, whose weight is inputs x outputs."""

    def __init__(self, num_in: int, num_out: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_in, num_out))
        self.bias = nn.Parameter(torch.empty(num_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def conv(num_in: int, num_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(num_in, num_out, size, stride, size // 2, bias=False)


class Block(nn.Module):
    """A residual block, either project's; `layers` are (convolution, norm) pairs in one module."""

    def __init__(self, run: nn.Module, layers: list[tuple[str, ...]], shortcut: str | None):
        super().__init__()
        for name, child in run.named_children():
            self.add_module(name, child)
        self.layers, self.shortcut = layers, shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number, names in enumerate(self.layers):
            for name in names:
                y = getattr(self, name)(y)
            if number + 1 < len(self.layers):
                y = y.relu()
        return (y + (x if self.shortcut is None else getattr(self, self.shortcut)(x))).relu()


def fused(paths: dict[tuple[int, int], list[nn.Module]], maps: list[Tensor]) -> list[Tensor]:
    """Each branch's sum of all; a path's steps have a ReLU between them."""
    sums = []
    for target in range(len(maps)):
        total = torch.zeros(())
        for source, x in enumerate(maps):
            for number, step in enumerate(paths.get((target, source), [])):
                x = step(x if number == 0 else x.relu())
            if source > target:
                x = F.interpolate(x, scale_factor=2 ** (source - target))
            total = total + x
        sums.append(total.relu())
    return sums


class MMPretrain(nn.Module):
    """Names as `backbone.`, `neck.0.` (a list of necks) and `head.fc.`."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        widths = [width << k for k in range(4)]
        back = self.backbone = nn.Module()
        back.conv1, back.bn1 = conv(3, 64, 3, 2), nn.BatchNorm2d(64)
        back.conv2, back.bn2 = conv(64, 64, 3, 2), nn.BatchNorm2d(64)
        back.layer1 = nn.Sequential(*(self.bottleneck(64 if k == 0 else 256, 64) for k in range(4)))
        for stage in (2, 3, 4):
            back.add_module(f"transition{stage - 1}", self.transition(stage, widths))
            modules = (self.module(widths[:stage]) for _ in range(NUM_MODULES[stage]))
            back.add_module(f"stage{stage}", nn.Sequential(*modules))
        neck = nn.Module()
        self.neck = nn.Sequential(neck)
        neck.increase_layers = nn.ModuleList(
            nn.Sequential(self.bottleneck(w, h // 4)) for w, h in zip(widths, HEAD, strict=True)
        )
        neck.downsample_layers = nn.ModuleList(
            Named(conv=conv(a, b, 3, 2), bn=nn.BatchNorm2d(b))
            for a, b in zip(HEAD[:-1], HEAD[1:], strict=True)
        )
        neck.final_layer = Named(conv=conv(1024, 2048, 1), bn=nn.BatchNorm2d(2048))
        self.head = Named(fc=nn.Linear(2048, num_classes))

    def step(self, num_in: int, num_out: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(conv(num_in, num_out, size, stride), nn.BatchNorm2d(num_out))

    def bottleneck(self, num_in: int, width: int) -> Block:
        shape = ((num_in, width, 1), (width, width, 3), (width, 4 * width, 1))
        parts: dict[str, nn.Module] = {}
        for k, (a, b, size) in enumerate(shape, start=1):
            parts |= {f"conv{k}": conv(a, b, size), f"bn{k}": nn.BatchNorm2d(b)}
        if num_in != 4 * width:
            parts["downsample"] = self.step(num_in, 4 * width, 1)
        layers = [(f"conv{k}", f"bn{k}") for k in (1, 2, 3)]
        return Block(Named(**parts), layers, "downsample" if "downsample" in parts else None)

    def basic(self, width: int) -> Block:
        parts: dict[str, nn.Module] = {}
        for k in (1, 2):
            parts |= {f"conv{k}": conv(width, width, 3), f"bn{k}": nn.BatchNorm2d(width)}
        return Block(Named(**parts), [("conv1", "bn1"), ("conv2", "bn2")], None)

    def transition(self, stage: int, widths: list[int]) -> nn.ModuleList:
        if stage == 2:
            added = nn.Sequential(self.step(256, widths[1], 3, 2))
            return nn.ModuleList([self.step(256, widths[0], 3), added])
        kept = [nn.Identity() for _ in range(stage - 1)]
        added = nn.Sequential(self.step(widths[stage - 2], widths[stage - 1], 3, 2))
        return nn.ModuleList([*kept, added])

    def module(self, widths: list[int]) -> nn.Module:
        module = nn.Module()
        module.branches = nn.ModuleList(
            nn.Sequential(*(self.basic(w) for _ in range(NUM_BLOCKS))) for w in widths
        )
        rows = []
        for target, out in enumerate(widths):
            row: list[nn.Module] = []
            for source, width in enumerate(widths):
                halvings = target - source
                if halvings < 0:
                    row.append(self.step(width, out, 1))
                elif halvings == 0:
                    row.append(nn.Identity())
                else:
                    steps = [self.step(width, width, 3, 2) for _ in range(halvings - 1)]
                    row.append(nn.Sequential(*steps, self.step(width, out, 3, 2)))
            rows.append(nn.ModuleList(row))
        module.fuse_layers = nn.ModuleList(rows)
        return module

    def forward(self, x: Tensor) -> Tensor:
        back, neck = self.backbone, self.neck[0]
        x = back.bn1(back.conv1(x)).relu()
        maps = [back.layer1(back.bn2(back.conv2(x)).relu())]
        for stage in (2, 3, 4):
            transition = getattr(back, f"transition{stage - 1}")
            given = [*maps, maps[-1]]
            maps = [
                layer(m) if isinstance(layer, nn.Identity) else layer(m).relu()
                for layer, m in zip(transition, given, strict=True)
            ]
            for module in getattr(back, f"stage{stage}"):
                maps = [branch(m) for branch, m in zip(module.branches, maps, strict=True)]
                paths = {}
                for i, row in enumerate(module.fuse_layers):
                    for j, path in enumerate(row):
                        paths[i, j] = list(path) if j < i else [] if i == j else [path]
                maps = fused(paths, maps)
        y = neck.increase_layers[0](maps[0])
        for k, down in enumerate(neck.downsample_layers, start=1):
            y = down(y).relu() + neck.increase_layers[k](maps[k])
        return self.head(neck.final_layer(y).relu().mean((2, 3)))


class Paddle(nn.Module):
    """PaddleClas's names since 2.2 or, with `old`, those before."""

    def __init__(self, width: int, num_classes: int, *, old: bool = False):
        super().__init__()
        self.old = old
        widths = [width << k for k in range(4)]
        self.conv_layer1_1, self.conv_layer1_2 = self.step(3, 64, 3, 2), self.step(64, 64, 3, 2)
        blocks = {
            f"bb_layer2_{k + 1}" if old else str(k): self.bottleneck(
                64 if k == 0 else 256, 64, down=k == 0
            )
            for k in range(4)
        }
        self.add_module("la1" if old else "layer1", Named(**blocks))
        self.entries = [
            [self.step(256, widths[0], 3), self.step(256, widths[1], 3, 2)],
            [self.step(widths[1], widths[2], 3, 2)],
            [self.step(widths[2], widths[3], 3, 2)],
        ]
        for stage, steps in enumerate(self.entries, start=1):
            first = stage if stage == 1 else stage + 1
            if old:
                names = [f"transition_tr{stage}_layer_{first + k}" for k in range(len(steps))]
                self.add_module(f"tr{stage}", Named(**dict(zip(names, steps, strict=True))))
            else:
                names = ["conv_tr1_1", "conv_tr1_2"] if stage == 1 else [f"conv_tr{stage}"]
                for name, step in zip(names, steps, strict=True):
                    self.add_module(name, step)
        self.stages = [self.stage(number, widths[:number]) for number in (2, 3, 4)]
        self.heads = [
            self.bottleneck(w, h // 4, down=True) for w, h in zip(widths, HEAD, strict=True)
        ]
        if old:
            named = {f"conv_cls_head_conv_{k}": head for k, head in enumerate(self.heads, start=1)}
            self.last_cls = Named(**named)
        else:
            self.last_cls = Named(func_list=nn.ModuleList(self.heads))
        self.downs = [self.step(a, b, 3, 2) for a, b in zip(HEAD[:-1], HEAD[1:], strict=True)]
        if old:
            for k, down in enumerate(self.downs, start=1):
                self.add_module(f"cls_head_add{k}", down)
        else:
            self.cls_head_conv_list = nn.ModuleList(self.downs)
        self.conv_last = self.step(1024, 2048, 1)
        self.add_module("out" if old else "fc", PaddleLinear(2048, num_classes))

    def step(self, num_in: int, num_out: int, size: int, stride: int = 1) -> Named:
        layer, norm = conv(num_in, num_out, size, stride), PaddleNorm(num_out)
        if self.old:
            return Named(_conv=layer, _batch_norm=norm)
        return Named(conv=layer, bn=norm)

    def bottleneck(self, num_in: int, width: int, *, down: bool) -> Block:
        parts = {
            "conv1": self.step(num_in, width, 1),
            "conv2": self.step(width, width, 3),
            "conv3": self.step(width, 4 * width, 1),
        }
        if down:
            parts["conv_down"] = self.step(num_in, 4 * width, 1)
        layers = [("conv1",), ("conv2",), ("conv3",)]
        return Block(Named(**parts), layers, "conv_down" if down else None)

    def basic(self, width: int) -> Block:
        parts = {f"conv{k}": self.step(width, width, 3) for k in (1, 2)}
        return Block(Named(**parts), [("conv1",), ("conv2",)], None)

    def stage(self, number: int, widths: list[int]) -> list[tuple[list, dict]]:
        """Register a stage; return for each module its branches and its paths of fusion."""
        made, modules = [], {}
        for m in range(NUM_MODULES[number]):
            branches = [[self.basic(w) for _ in range(NUM_BLOCKS)] for w in widths]
            paths: dict[tuple[int, int], list[nn.Module]] = {}
            named: dict[str, nn.Module] = {}
            for i, out in enumerate(widths):
                for j, width in enumerate(widths):
                    name = f"residual_st{number}_{m + 1}_layer_{i + 1}_{j + 1}"
                    if j > i:
                        paths[i, j] = [self.step(width, out, 1)]
                        named[name] = paths[i, j][0]
                    if j < i:
                        last = [self.step(width, out, 3, 2)]
                        paths[i, j] = [self.step(width, width, 3, 2) for _ in range(i - j - 1)]
                        paths[i, j] += last
                        for k, step in enumerate(paths[i, j], start=1):
                            named[f"{name}_{k}"] = step
            made.append((branches, paths))
            modules[f"stage_st{number}_{m + 1}" if self.old else str(m)] = (
                self.old_module(branches, named, f"st{number}_{m + 1}")
                if self.old
                else Named(
                    basic_block_list=nn.ModuleList(nn.Sequential(*b) for b in branches),
                    fuse_func=Named(residual_func_list=nn.ModuleList(named.values())),
                )
            )
        listed = Named(**modules)
        self.add_module(f"st{number}", listed if self.old else Named(stage_func_list=listed))
        return made

    def old_module(self, branches: list, named: dict[str, nn.Module], name: str) -> Named:
        blocks = {
            f"bb_{name}_branch_layer_{j}_{k}": block
            for j, branch in enumerate(branches, start=1)
            for k, block in enumerate(branch, start=1)
        }
        return Named(branches_func=Named(**blocks), fuse_func=Named(**named))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_layer1_2(self.conv_layer1_1(x).relu()).relu()
        x = (self.la1 if self.old else self.layer1)(x)
        maps: list[Tensor] = []
        for steps, modules in zip(self.entries, self.stages, strict=True):
            x = maps[-1] if maps else x
            maps += [step(x).relu() for step in steps]
            for branches, paths in modules:
                maps = [nn.Sequential(*branch)(m) for branch, m in zip(branches, maps, strict=True)]
                maps = fused(paths, maps)
        y = self.heads[0](maps[0])
        for k, down in enumerate(self.downs, start=1):
            y = down(y).relu() + self.heads[k](maps[k])
        return (self.out if self.old else self.fc)(self.conv_last(y).relu().mean((2, 3)))


def fill(network: nn.Module, seed: int) -> None:
    """Give all of a network's numbers random values under which maps keep their size."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        leaf = name.rpartition(".")[2]
        if value.dim() > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif leaf in ("running_var", "_variance", "weight"):
            value.uniform_(0.5, 1, generator=generator)
        elif value.is_floating_point():
            value.normal_(0, 0.1, generator=generator)
