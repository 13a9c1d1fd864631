"""What a weight file holds, said in lines; and a foreign one written anew under our names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from lib.checkpoint import save_atomically
from lib.files import sha256_of, write_atomically
from lib.models.hrnet import ARCHS, HRNetSpec, build_hrnet
from lib.weight_file import Misfits, WeightFile, find_misfits, load_weights, read_weights
from lib.weights import ENTRIES

_TORCH_SUFFIXES, _SAFETENSORS = (".pth", ".pt", ".tar"), ".safetensors"
_OUR_NAMES = "the official network's, as here"
_PUBLISHED_CLASSES = 1000


def inspect(source: Path | str) -> list[str]:
    """Return lines that say what a weight file holds, and all that does not fit its network.

    Raises what `read_weights` raises.
    """
    file = read_weights(source)
    weights = file.weights
    digest = sha256_of(file.path)
    types = Counter(str(value.dtype).removeprefix("torch.") for value in weights.values())
    arch = nearest_arch(file)
    lines = [
        f"file       {file.path}, {file.path.stat().st_size / 1e6:.1f} MB",
        f"sha256     {digest}{_published(digest)}",
        f"names      {file.converted_from + ', converted' if file.converted_from else _OUR_NAMES}",
        f"tensors    {len(weights)}: "
        + ", ".join(f"{count} of {name}" for name, count in types.most_common()),
        f"numbers    {sum(value.numel() for value in weights.values()):,}",
        f"classes    {_classes(file)}",
    ]
    if arch is None:
        return [*lines, "network    none of those here", *(f"  {name}" for name in weights)]
    misfits = find_misfits(_own_weights(arch, file), weights)
    if not misfits:
        return [*lines, f"network    {arch}, every tensor fits"]
    return [*lines, f"network    {arch} is the nearest, but", *_each_misfit(misfits)]


def convert(source: Path | str, output: Path, spec: HRNetSpec | None = None) -> str:
    """Write weights of any form under our names as .pth or .safetensors; return a line about it.

    The network is `spec`, or the one of ARCHS that they fit.
    Raises ValueError where they fit none, or `output` has another suffix, and what `read_weights`
    raises.
    """
    if output.suffix not in (*_TORCH_SUFFIXES, _SAFETENSORS):
        raise ValueError(f"{output}: the name must end in .pth, .pth.tar or {_SAFETENSORS}")
    file = read_weights(source)
    arch = nearest_arch(file)
    if spec is None and arch is None:
        raise ValueError(f"{file.path} holds no weights of a network here: say which by --cfg YAML")
    model = build_hrnet(spec or ARCHS[str(arch)], file.num_classes)
    loaded = load_weights(model, file)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    output.parent.mkdir(parents=True, exist_ok=True)
    remark = ""
    if output.suffix == _SAFETENSORS:
        import safetensors.torch  # the only writer of this form, and needed for no other

        write_atomically(safetensors.torch.save(weights), output)
        remark = "; the class names are not in it" if file.class_names else ""
    elif file.class_names:
        save_atomically({"state_dict": weights, "class_names": list(file.class_names)}, output)
    else:
        save_atomically(weights, output)
    return f"{output}: {loaded}{remark}"


def nearest_arch(file: WeightFile) -> str | None:
    """Return the published network whose widths and depths the weights show; None: no HRNet."""
    counts = {arch: _num_signs(spec, file.weights) for arch, spec in ARCHS.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def _num_signs(spec: HRNetSpec, weights: Mapping[str, torch.Tensor]) -> int:
    """Count the branches whose width is the network's, twice where they also end where its do."""
    num_signs = 0
    for number, stage in enumerate((spec.stage1, spec.stage2, spec.stage3, spec.stage4), start=1):
        for branch, channels in enumerate(stage.num_channels):
            block = "layer1.{1}.conv1.weight"
            if number > 1:
                block = f"stage{number}.{{0}}.branches.{branch}.{{1}}.conv1.weight"
            last = weights.get(block.format(stage.num_modules - 1, stage.num_blocks[branch] - 1))
            if last is None or last.shape[0] != channels:
                continue
            goes_on = block.format(0, stage.num_blocks[branch]) in weights
            if number > 1:
                goes_on |= block.format(stage.num_modules, 0) in weights
            num_signs += 1 if goes_on else 2
    return num_signs


def _own_weights(arch: str, file: WeightFile) -> dict[str, torch.Tensor]:
    head = file.weights.get("classifier.weight")
    has_head = head is not None and head.dim() == 2
    with torch.device("meta"):  # shapes alone
        return build_hrnet(
            ARCHS[arch], file.num_classes if has_head else _PUBLISHED_CLASSES
        ).state_dict()


def _published(digest: str) -> str:
    names = [e.name for e in ENTRIES.values() if e.sha256 and digest.startswith(e.sha256)]
    return f", published as {', '.join(names)}" if names else ""


def _classes(file: WeightFile) -> str:
    try:
        known = "their names are known" if file.class_names else "their names are not in the file"
        return f"{file.num_classes}, {known}"
    except ValueError:
        return "there is no classifier"


def _each_misfit(misfits: Misfits) -> Iterator[str]:
    for what, names in (
        ("missing", misfits.missing),
        ("unexpected", misfits.unexpected),
        ("other shape", misfits.other_shape),
    ):
        yield from (f"  {what}: {name}" for name in names)
