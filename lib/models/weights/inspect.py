"""What a weight file holds, said in lines; and a foreign one written anew under our names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from yacs.config import CfgNode

from lib.config.load import load_config
from lib.config.recipe import Recipe, eval_recipe
from lib.models.build import network_spec
from lib.models.guess import arch_name, nearest_arch
from lib.models.hrnet import ARCHS, HRNetSpec, build_hrnet
from lib.models.weights.facts import ARCH, CLASS_NAMES, KEY, RECIPE, facts_text, with_facts
from lib.models.weights.find import published
from lib.models.weights.load import Misfits, WeightFile, find_misfits, load_weights, read_weights
from lib.models.weights.registry import ENTRIES, Entry
from lib.models.weights.torch_file import save_atomically
from lib.runtime.checked import shown
from lib.runtime.files import check_outputs, sha256_of, write_atomically
from lib.runtime.run_folder import CONFIG, read_with
from lib.runtime.text import printable

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
    arch = nearest_arch(file.weights)
    lines = [
        f"file       {file.path}, {file.path.stat().st_size / 1e6:.1f} MB",
        f"sha256     {digest}{_published(digest)}",
        f"names      {file.converted_from + ', converted' if file.converted_from else _OUR_NAMES}",
        f"tensors    {len(weights)}: "
        + ", ".join(f"{count} of {name}" for name, count in types.most_common()),
        f"numbers    {sum(value.numel() for value in weights.values()):,}",
        f"classes    {_classes(file)}",
        *(f"input      {recipe}" for recipe in _recipes(file)),
        *(f"note       {note}" for note in file.notes),
    ]
    if arch is None:
        return [
            *lines,
            "network    none of those here",
            *(f"  {printable(name)}" for name in weights),
        ]
    misfits = find_misfits(_own_weights(arch, file), weights)
    if not misfits:
        return [*lines, f"network    {arch}, every tensor fits"]
    return [*lines, f"network    {arch} is the nearest, but", *_each_misfit(misfits)]


def convert(source: Path | str, output: Path, config: CfgNode | None = None) -> str:
    """Write weights of any form under our names as .pth or .safetensors; return a line about it.

    Class names, input recipe and the network's name go along where they are known. The network is
    that of `config`, or of ARCHS that they fit, or of the config.yaml beside them.
    Raises ValueError where they fit none, or `output` has another suffix or is the source itself,
    and what `read_weights` raises.
    """
    if output.suffix not in (*_TORCH_SUFFIXES, _SAFETENSORS):
        raise ValueError(
            f"{shown(str(output))}: the name must end in .pth, .pth.tar or .safetensors"
        )
    file = read_weights(source)
    check_outputs({"OUTPUT": output}, read_with(file.path))
    names = file.class_names
    if names is not None and len(names) != file.num_classes:
        raise ValueError(
            f"{printable(str(file.path))} has {file.num_classes} classes, and "
            f"{file.names_source} names {len(names)}: take the wrong one out first"
        )
    beside = file.path.with_name(CONFIG)
    own = load_config(beside) if config is None and beside.is_file() else config
    spec = _spec(file, config, own)
    model = build_hrnet(spec, file.num_classes)
    loaded = load_weights(model, file)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    facts = {
        **_recipe_facts(published(source), own),
        **file.facts,
        ARCH: arch_name(spec) or file.facts.get(ARCH),
        CLASS_NAMES: None if names is None else list(names),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == _SAFETENSORS:
        import safetensors.torch  # the only writer of this form, and needed for no other

        metadata = {"format": "pt", KEY: facts_text(facts)}
        write_atomically(safetensors.torch.save(weights, metadata), output)
    elif names:
        content = {"state_dict": weights, CLASS_NAMES: list(names)}
        save_atomically({**content, KEY: facts_text(facts)}, output)
    else:
        save_atomically(with_facts(weights, facts), output)
    kept = f"; with their {len(names)} class names ({file.names_source})" if names else ""
    return f"{printable(str(output))}: {loaded}{kept}"


def _spec(file: WeightFile, config: CfgNode | None, own: CfgNode | None) -> HRNetSpec:
    """Return the network of weights; `config` is asked for, `own` may be what stands beside."""
    if config is not None:
        return network_spec(config)
    arch = nearest_arch(file.weights)
    fits = arch is not None and not find_misfits(_own_weights(arch, file), file.weights)
    if own is not None and not fits:
        return network_spec(own)
    if arch is None:
        raise ValueError(
            f"{printable(str(file.path))} holds no weights of a network here: say which by --cfg "
            "YAML"
        )
    return ARCHS[arch]


def _recipe_facts(entry: Entry | None, config: CfgNode | None) -> dict[str, object]:
    """Return the input recipe of published weights, or of a configuration."""
    if entry is not None:
        return {RECIPE: entry.recipe.as_json()}
    return {} if config is None else {RECIPE: eval_recipe(config).as_json()}


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


def _recipes(file: WeightFile) -> list[Recipe]:
    """Return the input recipe that is known with the weights, in a list; an empty one if none."""
    where = printable(str(file.path))
    return [Recipe.from_json(file.facts[RECIPE], where=where)] if RECIPE in file.facts else []


def _classes(file: WeightFile) -> str:
    try:
        known = "their names are not in the file"
        if file.class_names:
            known = f"their names are known ({file.names_source})"
        return f"{file.num_classes}, {known}"
    except ValueError:
        return "there is no classifier"


def _each_misfit(misfits: Misfits) -> Iterator[str]:
    for what, names in (
        ("missing", misfits.missing),
        ("unexpected", misfits.unexpected),
        ("other shape", misfits.other_shape),
    ):
        yield from (f"  {what}: {printable(name)}" for name in names)
