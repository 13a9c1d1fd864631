"""Weights by name: the registry, the caches of other projects, and the scripts that take names."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from conftest import REPO, TRAIN, VALID, Done
from foreign_hrnets import MMPretrain, fill
from published import PUBLISHED
from range_server import RangeServer, WeightHandler, serving
from safetensors.torch import save_file

from lib.models.guess import guess_spec, nearest_arch
from lib.models.hrnet import ARCHS, build_hrnet
from lib.models.weights.find import cached, find_weights
from lib.models.weights.load import read_weights
from lib.models.weights.registry import DEFAULTS, ENTRIES, lookup
from lib.models.weights.transfer import DownloadError
from lib.runtime.environment import read_cache_variables

WEIGHTS = "tools/weights.py"
NAME, REPOSITORY = "hrnet_w18_small_v1.timm_ms", "timm/hrnet_w18_small.ms_in1k"
ON_HUB = f"/{REPOSITORY}/resolve/main/model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RunScript = Callable[..., Done]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all caches of this test are."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGINGFACE_", "TORCH_HOME", "http_proxy", "HTTP_PROXY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three classes, as timm writes it."""
    network = timm.create_model("hrnet_w18_small", num_classes=3)
    fill(network, seed=0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture
def hub(weight_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """A server that answers as the Hugging Face hub does, and is taken for it."""
    digest = hashlib.sha256(weight_file.read_bytes()).hexdigest()
    with serving(weight_file.parent, WeightHandler) as server:
        server.redirects[ON_HUB] = {
            "Location": "/model.safetensors",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{digest}"',
        }
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_timms_rows_agree_with_timm() -> None:
    """An oracle for names, licences, preprocessing; and a bare name is what timm gives for it."""
    rows = {entry.url: entry for entry in ENTRIES.values() if entry.source == "timm"}
    models = timm.list_models("hrnet*", pretrained=True)
    assert len(models) == len(rows)
    for model in models:
        theirs = timm.models.get_pretrained_cfg(model)
        ours = rows[f"https://huggingface.co/{theirs.hf_hub_id}/resolve/main/model.safetensors"]
        assert (ours.licence, ours.crop_share, ours.interpolation, ours.image_size) == (
            theirs.license,
            theirs.crop_pct,
            theirs.interpolation,
            theirs.input_size[1],
        )
    for arch, name in DEFAULTS.items():
        theirs = timm.models.get_pretrained_cfg(arch.replace("small_v1", "small"))
        assert f"/{theirs.hf_hub_id}/" in ENTRIES[name].url


def test_every_row_is_of_a_network_here_and_every_network_has_a_name() -> None:
    assert {entry.arch for entry in ENTRIES.values()} == set(PUBLISHED) == set(DEFAULTS)
    for name, entry in ENTRIES.items():
        assert name == entry.name and name.startswith(f"{entry.arch}.")
        assert entry.url.startswith("https://") and 70 < entry.top1 < 90
        assert entry.top5 is None or entry.top1 < entry.top5 < 100
        assert re.fullmatch(r"([0-9a-f]{8}|[0-9a-f]{64})?", entry.sha256)
    assert len({entry.url for entry in ENTRIES.values()}) == len(ENTRIES)


def test_names_are_ours_a_networks_alone_or_timms_own() -> None:
    assert lookup("hrnet_w18") is ENTRIES["hrnet_w18.timm"]
    for name in ("hrnet_w18.ms_in1k", "timm/hrnet_w18.ms_in1k", "hrnet_w18.timm_ms"):
        assert lookup(name) is ENTRIES["hrnet_w18.timm_ms"]
    assert lookup("hrnet_w18.nobody") is None


def test_every_address_of_the_registry_stands_in_the_public_address_statement() -> None:
    statement = (REPO / "public_address_statement.md").read_text()
    for path in sorted((REPO / "lib" / "models" / "weights").glob("*.py")):
        for host in re.findall(r"https://[\w.-]+\.\w+", path.read_text()):
            row = f"| {path.relative_to(REPO)} | {host}"
            assert row in statement, row


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"XDG_CACHE_HOME": "/x"},
        {"HF_HOME": "/hf", "TORCH_HOME": "~/torch"},
        {"HF_HOME": "/hf", "HF_HUB_CACHE": "$HOME/hub"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "https://m/"},
    ],
)
def test_the_caches_are_where_huggingface_hub_and_torch_have_theirs(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ours = read_cache_variables()
    assert str(ours.checkpoints) == f"{torch.hub.get_dir()}/checkpoints"
    spec = importlib.util.spec_from_file_location("fresh", huggingface_hub.constants.__file__)
    assert spec is not None and spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)  # they read the environment once, when imported
    assert str(ours.hub) == theirs.HF_HUB_CACHE
    assert ours.offline == theirs.HF_HUB_OFFLINE
    assert ours.hub_mirror == ("https://m" if "HF_ENDPOINT" in variables else "")


def test_a_name_is_fetched_into_huggingface_hubs_cache_where_that_finds_it(
    hub: RangeServer, home: Path, weight_file: Path
) -> None:
    assert cached(ENTRIES[NAME]) is None
    path = find_weights(NAME)
    assert path.read_bytes() == weight_file.read_bytes()
    theirs = huggingface_hub.try_to_load_from_cache(
        REPOSITORY, "model.safetensors", cache_dir=home / "huggingface" / "hub"
    )
    assert theirs == str(path) and COMMIT in str(path)
    assert cached(ENTRIES[NAME]) == path
    info = huggingface_hub.scan_cache_dir(home / "huggingface" / "hub")
    assert not info.warnings and [repo.repo_id for repo in info.repos] == [REPOSITORY]
    hub.requests.clear()
    assert find_weights(NAME) == find_weights(REPOSITORY) == path
    assert hub.requests == []


def test_what_huggingface_hub_has_fetched_is_found(home: Path, monkeypatch: object) -> None:
    root = home / "huggingface" / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "snapshots" / COMMIT).mkdir(parents=True)
    (root / "snapshots" / COMMIT / "model.safetensors").write_bytes(b"theirs")
    assert find_weights(NAME).read_bytes() == b"theirs"


def test_what_torch_has_fetched_is_found(home: Path) -> None:
    path = home / "torch" / "hub" / "checkpoints" / "hrnetv2_w18-8cb57bb9.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"theirs")
    assert find_weights("hrnet_w18.official") == path
    assert find_weights(ENTRIES["hrnet_w18.official"].url) == path


def test_a_file_that_is_not_what_the_hub_says_is_refused_and_removed(
    hub: RangeServer, home: Path
) -> None:
    hub.redirects[ON_HUB]["X-Linked-Etag"] = '"' + "0" * 64 + '"'
    with pytest.raises(DownloadError, match="published is 0000000000000000"):
        find_weights(NAME)
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_mirror_that_tells_no_revision_and_a_file_system_without_links_will_do(
    hub: RangeServer, monkeypatch: pytest.MonkeyPatch, weight_file: Path
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    hub.redirects[ON_HUB] = {"Location": "/model.safetensors"}
    path = find_weights(NAME)
    assert path.read_bytes() == weight_file.read_bytes() and find_weights(NAME) == path


def test_a_mirror_that_tells_no_revision_leaves_the_known_one_alone(
    hub: RangeServer, home: Path, weight_file: Path
) -> None:
    root = home / "huggingface" / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "snapshots" / COMMIT).mkdir(parents=True)
    (root / "snapshots" / COMMIT / "config.json").write_text("{}")
    hub.redirects[ON_HUB] = {"Location": "/model.safetensors"}
    path = find_weights(NAME)
    assert path == root / "snapshots" / COMMIT / "model.safetensors"
    assert path.read_bytes() == weight_file.read_bytes() and find_weights(NAME) == path
    assert (root / "refs" / "main").read_text() == COMMIT


def test_an_address_that_names_a_commit_needs_no_reference(hub: RangeServer, home: Path) -> None:
    address = ON_HUB.replace("/main/", f"/{COMMIT}/")
    hub.redirects[address] = hub.redirects[ON_HUB]
    path = find_weights(f"{hub.url}{address}")
    root = home / "huggingface" / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    assert path == root / "snapshots" / COMMIT / "model.safetensors"
    assert find_weights(f"{hub.url}{address}") == path
    assert not (root / "refs").exists()


def test_offline_is_respected_before_anything_is_asked_for(
    hub: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids to fetch it"):
        find_weights(NAME)
    assert hub.requests == []


def test_a_run_starts_from_weights_by_name_and_is_evaluated_by_name(
    hub: RangeServer, run_script: RunScript, tiny_data: Path, tmp_path: Path
) -> None:
    recipe = REPO / "experiments" / "cls_hrnet_w18_small_v1_sgd_lr5e-2_wd1e-4_bs32_x100.yaml"
    common = ["--cfg", recipe, "--device", "cpu", "--workers", 0, "--bs", 4]
    common += ["--out", tmp_path / "o"]
    small = ["MODEL.IMAGE_SIZE", "[64, 64]"]
    done = run_script(TRAIN, tiny_data, *common, "--pretrained", NAME, "--stop_step", 1, *small)
    assert done.returncode == 0, done.stderr
    assert f"pretrained weights: 552 tensors from {find_weights(NAME)}" in done.stdout
    assert len(hub.requests) == 2, "a redirect and the file, once"
    done = run_script(VALID, tiny_data, *common, "--testModel", NAME, *small)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "o" / "result.json").read_text())["weights"].endswith(
        f"snapshots/{COMMIT}/model.safetensors"
    )
    assert len(hub.requests) == 2


@pytest.mark.parametrize(
    "script, flag",
    [
        (TRAIN, "--pretrained"),
        (TRAIN, "DISTILL.TEACHER"),
        ("tools/finetune.py", "--pretrained"),
        (VALID, "--testModel"),
        ("tools/predict.py", "--testModel"),
        ("hrnet_pth2onnx.py", "--input"),
    ],
)
def test_a_name_that_nobody_knows_is_answered_with_the_nearest(
    script: str, flag: str, run_script: RunScript, tiny_data: Path, tmp_path: Path
) -> None:
    where = ["--output", tmp_path / "x.onnx"] if script.endswith("onnx.py") else [tiny_data]
    done = run_script(script, *where, flag, "hrnet_w19.tim")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("[Error] no such weight file: hrnet_w19.tim; it is no known name")
    assert "the nearest are hrnet_w18.timm, " in done.stderr


def test_a_name_of_another_network_is_refused_before_it_is_fetched(
    hub: RangeServer, run_script: RunScript, tiny_data: Path
) -> None:
    done = run_script(TRAIN, tiny_data, "--pretrained", NAME)
    assert done.returncode == 2
    assert f"{NAME} is weights of hrnet_w18_small_v1, but --cfg (MODEL.NAME)" in done.stderr
    assert hub.requests == []


def test_a_resumed_run_needs_no_pretrained_weights(
    run_script: RunScript, tiny_data: Path, tmp_path: Path
) -> None:
    """Pitfall 3: the checkpoint comes first, so that the other is not even looked for."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "c.pth.tar")
    done = run_script(
        TRAIN, tiny_data, "--pretrained", "nobody", "--resume", tmp_path / "c.pth.tar",
        "--out", tmp_path, "--device", "cpu", "--workers", 0,
    )  # fmt: skip
    assert done.returncode == 2 and "no training state to resume from" in done.stderr


def test_list_shows_what_there_is_and_get_prints_where_it_is(
    hub: RangeServer, run_script: RunScript, tmp_path: Path, weight_file: Path
) -> None:
    listed = run_script(WEIGHTS, "list", "Small_V1").stdout.splitlines()
    assert [line.split()[0] for line in listed[1:4]] == [
        name for name in ENTRIES if "small_v1" in name
    ]
    assert all(line.endswith("no") for line in listed[1:4])
    got = run_script(WEIGHTS, "get", NAME)
    assert got.returncode == 0 and got.stdout == f"{find_weights(NAME)}\n"
    listed = run_script(WEIGHTS, "list").stdout.splitlines()
    assert [line.split()[0] for line in listed if line.endswith("yes")] == [NAME]
    got = run_script(WEIGHTS, "get", NAME, "--out", tmp_path)
    copy = tmp_path / f"{NAME}.safetensors"
    assert got.stdout == f"{copy}\n" and copy.read_bytes() == weight_file.read_bytes()


@pytest.mark.parametrize("out", ["weights/", "weights", "a/b.c"])
def test_get_makes_the_folder_that_out_names(
    out: str, home: Path, run_script: RunScript, tmp_path: Path
) -> None:
    """The file in it keeps its whole ending."""
    name = "hrnet_w18.official_cutmix"
    kept = home / "torch" / "hub" / "checkpoints" / ENTRIES[name].url.rpartition("/")[2]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"theirs")
    for _ in range(2):
        got = run_script(WEIGHTS, "get", name, "--out", f"{tmp_path}/{out}")
        copy = tmp_path / out / f"{name}.pth.tar"
        assert (got.returncode, got.stdout) == (0, f"{copy}\n"), got.stderr
        assert copy.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    "out, taken, expected",
    [
        ("x.pth", "x.pth", "x.pth is there already, of other content"),
        ("weights/", "weights", "weights is a file, not a folder"),
    ],
)
def test_get_leaves_other_files_alone(
    out: str, taken: str, expected: str, run_script: RunScript, tmp_path: Path
) -> None:
    (tmp_path / "mine.pth").write_bytes(b"mine")
    (tmp_path / taken).write_bytes(b"older")
    done = run_script(WEIGHTS, "get", tmp_path / "mine.pth", "--out", f"{tmp_path}/{out}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and expected in done.stderr
    assert (tmp_path / taken).read_bytes() == b"older"


def test_inspect_says_what_a_file_holds(
    hub: RangeServer, run_script: RunScript, weight_file: Path
) -> None:
    said = run_script(WEIGHTS, "inspect", NAME).stdout
    assert hashlib.sha256(weight_file.read_bytes()).hexdigest() in said
    for part in (
        "names      the official network's, as here",
        "tensors    552: 461 of float32, 91 of int64",
        "classes    3, their names are not in the file",
        "network    hrnet_w18_small_v1, every tensor fits",
        f"published  {NAME} by timm, licence mit, https://huggingface.co/{REPOSITORY}/",
        "accuracy   top-1 72.34%, top-5 90.688% (theirs, with 224 x 224, 87.5% crop, bilinear)",
    ):
        assert part in said, part


def test_a_file_that_has_a_published_name_is_a_file(run_script: RunScript, tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "hrnet_w18")
    said = run_script(WEIGHTS, "inspect", "hrnet_w18", cwd=tmp_path).stdout
    assert "file       hrnet_w18," in said and "published" not in said and "accuracy" not in said
    got = run_script(WEIGHTS, "get", "hrnet_w18", "--out", "copies", cwd=tmp_path)
    assert got.stdout == "copies/hrnet_w18\n"


@pytest.mark.parametrize("arch", ARCHS)
def test_each_network_is_told_by_its_weights(arch: str) -> None:
    with torch.device("meta"):
        weights = build_hrnet(ARCHS[arch], 7).state_dict()
    assert nearest_arch(weights) == arch
    for name in [name for name in weights if name.startswith(("stage4.", "layer1."))]:
        del weights[name]
    assert nearest_arch(weights) == arch
    for name in [name for name in weights if ".0.branches.1." in name]:
        del weights[name]
    assert guess_spec(weights) is None


def test_inspect_lists_everything_that_does_not_fit(run_script: RunScript, tmp_path: Path) -> None:
    """Pitfall 27."""
    with torch.device("meta"):
        names = MMPretrain(18, 4).state_dict()
    weights = {name: torch.zeros(value.shape) for name, value in names.items()}
    for name in ("backbone.layer1.0.conv1.weight", "head.fc.bias"):
        del weights[name]
    weights["backbone.extra"] = torch.zeros(1)
    weights["backbone.conv2.weight"] = torch.zeros(64, 64, 1, 1)
    torch.save({"state_dict": weights}, tmp_path / "x.pth")
    said = run_script(WEIGHTS, "inspect", tmp_path / "x.pth").stdout.splitlines()
    assert "names      mmpretrain, converted" in said
    assert said[-5:] == [
        "network    hrnet_w18 is the nearest, but",
        "  missing: layer1.0.conv1.weight",
        "  missing: classifier.bias",
        "  unexpected: extra",
        "  other shape: conv2.weight (64, 64, 1, 1) for (64, 64, 3, 3)",
    ]
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "y.pth")
    said = run_script(WEIGHTS, "inspect", tmp_path / "y.pth").stdout.splitlines()
    assert said[-3:] == [
        "classes    there is no classifier",
        "network    none of those here",
        "  a.weight",
    ]


def test_convert_writes_our_names_in_both_forms(
    run_script: RunScript, tmp_path: Path, tiny_yaml: Path, weight_file: Path
) -> None:
    pth, safetensors = tmp_path / "new" / "x.pth.tar", tmp_path / "x.safetensors"
    done = run_script(WEIGHTS, "convert", weight_file, pth)
    assert done.stdout == f"{pth}: 552 tensors from {weight_file}\n"
    weights = dict(read_weights(weight_file).weights)
    assert torch.load(pth, weights_only=True).keys() == weights.keys()
    torch.save({"state_dict": weights, "class_names": ["a", "b", "c"]}, tmp_path / "named.pth")
    done = run_script(WEIGHTS, "convert", tmp_path / "named.pth", safetensors)
    assert done.stdout.endswith("; with their 3 class names (class_names in the file)\n")
    again = read_weights(safetensors).weights
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    run_script(WEIGHTS, "convert", tmp_path / "named.pth", tmp_path / "kept.pth")
    assert read_weights(tmp_path / "kept.pth").class_names == ("a", "b", "c")


def test_convert_takes_a_network_without_a_name_from_its_yaml(
    run_script: RunScript, tmp_path: Path, tiny_yaml: Path
) -> None:
    from lib.config.load import load_config
    from lib.models.build import network_spec

    tiny = build_hrnet(network_spec(load_config(tiny_yaml)), 3)
    torch.save({f"module.{k}": v for k, v in tiny.state_dict().items()}, tmp_path / "x.pth")
    out = tmp_path / "y.pth"
    done = run_script(WEIGHTS, "convert", tmp_path / "x.pth", out)
    assert done.returncode == 2 and "say which by --cfg YAML" in done.stderr
    done = run_script(WEIGHTS, "convert", tmp_path / "x.pth", out, "--cfg", tiny_yaml)
    assert done.returncode == 0, done.stderr
    assert torch.load(out, weights_only=True).keys() == tiny.state_dict().keys()


@pytest.mark.parametrize(
    "words, expected",
    [
        (["get"], "get takes 1 words, not 0"),
        (["convert", "a"], "convert takes 2 words, not 1 (a)"),
        (["list", "nobody"], "no name has 'nobody' in it"),
        (["get", "hrnet_w18.tim"], "the nearest are hrnet_w18.timm"),
        (["inspect", "there/is/none.pth"], "no such weight file: there/is/none.pth"),
        (["get", "http://127.0.0.1:1/w.pth#x y"], "is no address to download from"),
        (["convert", "a.pth", "b.txt"], "'b.txt': the name must end in .pth, .pth.tar or"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    words: list[str], expected: str, run_script: RunScript
) -> None:
    done = run_script(WEIGHTS, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("[Error] ") and done.stderr.count("\n") == 1
    assert expected in done.stderr


def test_a_failed_download_leaves_a_script_with_one_line_and_exit_code_2(
    hub: RangeServer, run_script: RunScript
) -> None:
    done = run_script(WEIGHTS, "get", f"{hub.url}/absent.pth")
    assert done.returncode == 2
    assert done.stderr.startswith(f"[Error] {hub.url}/absent.pth cannot be downloaded: the server")
    assert done.stderr.count("\n") == 1
