"""Checkpoints as trainers write them: keys, prefixes, objects beside the weights, NPU tensors."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from test_checkpoint import saved, tiny_network
from torch import Tensor

from lib.config.load import load_config
from lib.models.hrnet import ARCHS, find_spec
from lib.models.weights import stand_ins
from lib.models.weights.find import published
from lib.models.weights.load import Head, WeightFile, load_weights, not_finite, read_weights
from lib.models.weights.registry import lookup
from lib.models.weights.stand_ins import STAND_INS
from lib.training.finetuning.network import network_settings
from lib.training.start import TrainRequest

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def whole() -> Weights:
    return tiny_network().state_dict()


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Some names of an HRNet's, which tell that it is one."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "conv1.weight": (4, 3, 3, 3),
        "bn1.weight": (4,),
        "stage2.0.branches.0.0.conv1.weight": (4, 4, 3, 3),
        "stage2.0.branches.1.0.conv1.weight": (8, 8, 3, 3),
        "classifier.weight": (3, 4),
        "classifier.bias": (3,),
    }
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def other(weights: Weights) -> Weights:
    return {name: torch.zeros_like(value) for name, value in weights.items()}


def below(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": value for name, value in weights.items()}


def assert_same(read: Weights, weights: Weights) -> None:
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def refused(path: Path) -> str:
    """The one line in which a file is refused."""
    with pytest.raises(ValueError) as error:
        read_weights(path)
    said = str(error.value)
    assert said.startswith(f"{path}") and said.isprintable() and len(said) < 500
    return said


@pytest.mark.parametrize(
    "prefix",
    [
        "module.", "_orig_mod.module.", "module._orig_mod.", "module.module.", "model.", "net.",
        "model.net.backbone.", "student._orig_mod.", "encoder.", "my_network.", "ema.module.",
    ],
)  # fmt: skip
def test_prefixes_that_all_names_share_are_taken_off(
    prefix: str, weights: Weights, tmp_path: Path
) -> None:
    """Fault C1: in any order and number."""
    path = saved({"state_dict": below(prefix, weights)}, tmp_path / "x.pth")
    assert_same(read_weights(path).weights, weights)


def test_what_a_trainer_keeps_beside_the_network_is_left_out_and_said(
    whole: Weights, tmp_path: Path
) -> None:
    """Fault C1: Lightning saves its losses and metrics too."""
    content = below("model.", whole) | {
        "criterion.weight": torch.ones(3),
        "metric.sum": torch.ones(()),
    }
    content["train.\x1b[31mmetric.total"] = torch.zeros(())
    file = read_weights(saved({"state_dict": content}, tmp_path / "x.ckpt"))
    assert_same(file.weights, whole)
    said = load_weights(tiny_network(), file)
    assert "; 3 tensors that are not the network's left out ('criterion.weight', " in said
    assert said.isprintable()


def test_averaged_weights_go_first_and_a_teacher_last(
    weights: Weights, other: Weights, tmp_path: Path
) -> None:
    """Fault C1."""
    for first, second in (("ema_model.module.", "model."), ("student.", "teacher.")):
        both = below(second, other) | below(first, weights)
        assert_same(read_weights(saved({"state_dict": both}, tmp_path / "x.pth")).weights, weights)
    both = below("one.", weights) | below("two.", other)
    assert "several networks, under 'one' and 'two'" in refused(saved(both, tmp_path / "x.pth"))


def test_networks_that_are_no_hrnet_keep_their_names(tmp_path: Path) -> None:
    """Fault C1: a teacher of another kind."""
    content = {"module.model.a": torch.ones(2), "module.model.b": torch.ones(1)}
    assert list(read_weights(saved(content, tmp_path / "x.pth")).weights) == ["model.a", "model.b"]


@pytest.mark.parametrize(
    "key",
    [
        "model_state_dict", "net", "network", "weights", "params", "ema", "student", "teacher",
        "model_ema", "params_ema", "my_key",
    ],
)  # fmt: skip
def test_weights_are_found_under_every_usual_key(
    key: str, weights: Weights, tmp_path: Path
) -> None:
    """Fault C4."""
    content = {"epoch": 3, key: weights, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    assert_same(read_weights(saved(content, tmp_path / "x.pth")).weights, weights)


def test_empty_and_partial_averages_are_passed_over(
    weights: Weights, other: Weights, tmp_path: Path
) -> None:
    """Fault C4: `model_ema: {}` beside a whole model."""
    content = {"model_ema": {}, "model": weights, "optimizer": {"momentum": other}}
    file = read_weights(saved(content, tmp_path / "x.pth"))
    assert_same(file.weights, weights)
    assert file.notes == ()
    parameters = dict(list(weights.items())[:-1])
    content = {"ema": {"decay": 0.9, "shadow": parameters}, "net": {"module": weights}}
    file = read_weights(saved(content, tmp_path / "x.pth"))
    assert_same(file.weights, weights)
    assert "the averaged weights under 'ema.shadow' are not whole" in file.notes[0]
    content = {"state_dict_ema": weights, "state_dict": other}
    file = read_weights(saved(content, tmp_path / "x.pth"))
    assert_same(file.weights, weights)
    assert file.notes == ("the averaged weights, under 'state_dict_ema'",)
    content = {"student": weights, "teacher": other}
    file = read_weights(saved(content, tmp_path / "x.pth"))
    assert_same(file.weights, weights)
    assert file.notes == ("those under 'teacher' are left out",)


def test_averages_in_a_list_without_names_are_told_of(weights: Weights, tmp_path: Path) -> None:
    """Fault C4: what is evaluated elsewhere is not what is read here."""
    content = {"model": weights, "ema": {"shadow_params": list(weights.values())}}
    torch.save(content, tmp_path / "w.pth")
    file = read_weights(tmp_path / "w.pth")
    assert_same(file.weights, weights)
    assert any("'ema.shadow_params' are a list" in note for note in file.notes)


def test_mmengines_averaged_weights_are_those_of_its_state_dict(
    weights: Weights, other: Weights, tmp_path: Path
) -> None:
    """Fault C4: its hook swaps the two as it saves."""
    content = {"state_dict": weights, "ema_state_dict": below("module.", other), "message_hub": {}}
    assert_same(read_weights(saved(content, tmp_path / "x.pth")).weights, weights)
    del content["message_hub"]
    assert not read_weights(saved(content, tmp_path / "x.pth")).weights["conv1.weight"].any()


def test_a_mapping_within_itself_is_no_endless_search(weights: Weights, tmp_path: Path) -> None:
    """Fault R6."""
    content: dict[str, object] = {f"key{n}": n for n in range(9)}
    content |= {f"self{n}": content for n in range(99)}
    content["net"] = weights
    assert_same(read_weights(saved(content, tmp_path / "x.pth")).weights, weights)


def test_safetensors_are_told_by_their_content(weights: Weights, tmp_path: Path) -> None:
    """Fault C4."""
    from safetensors.torch import save_file

    plain = {name: value.contiguous() for name, value in weights.items()}
    save_file(plain, tmp_path / "renamed.pth")
    assert_same(read_weights(tmp_path / "renamed.pth").weights, weights)
    torch.save(weights, tmp_path / "renamed.safetensors")
    assert_same(read_weights(tmp_path / "renamed.safetensors").weights, weights)


def test_a_backbone_alone_is_taken_where_the_head_is_new_anyway(
    whole: Weights, tmp_path: Path
) -> None:
    """Fault C4: mmsegmentation's, and timm's of features_only."""
    parts = ("incre_modules", "downsamp_modules", "final_layer", "classifier")
    backbone = {n: v for n, v in whole.items() if not n.startswith(parts)}
    content = below("backbone.", backbone) | {"decode_head.conv_seg.weight": torch.ones(9, 9, 1, 1)}
    file = read_weights(saved({"state_dict": content}, tmp_path / "seg.pth"))
    network = tiny_network(5)
    fresh = network.final_layer[0].weight.clone()
    for head in (Head.NEW, Head.NEW_IF_OTHER):
        said = load_weights(network, file, head=head)
        assert "it has no classifier: that is a new one of 5, and incre_modules, " in said
        assert "1 tensors that are not the network's left out" in said
    assert torch.equal(network.conv1.weight, whole["conv1.weight"])
    assert torch.equal(network.final_layer[0].weight, fresh)
    with pytest.raises(ValueError, match="missing"):
        load_weights(tiny_network(5), file)
    whole = {n: v for n, v in whole.items() if not n.startswith("classifier.")}
    said = load_weights(tiny_network(5), WeightFile(Path("x"), whole, None), head=Head.NEW_IF_OTHER)
    assert said.endswith("; it has no classifier: that is a new one of 5")
    damaged = {n: v for n, v in backbone.items() if n != "stage4.0.branches.0.0.conv1.weight"}
    with pytest.raises(ValueError, match="1 missing"):
        load_weights(tiny_network(5), WeightFile(Path("x"), damaged, None), head=Head.NEW)


def test_a_run_folder_and_the_home_folder_are_paths_of_weights(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault C4."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no weights in the folder .*run: wanted is one"):
        read_weights(run)
    for name in ("checkpoint.pth.tar", "final_state.pth.tar", "model_best.pth.tar"):
        saved(weights, run / name)
        for text in (run, "run", "run/", "~/run", f"~/run/{name}"):
            assert read_weights(text).path.resolve() == run / name
    (run / "model_best.pth.tar").write_bytes(b"PK")
    with pytest.raises(ValueError, match="damaged") as error:
        read_weights("~/run")
    assert "downloaded" not in str(error.value)
    request = TrainRequest(Path("data"), run, "x", resume=Path("~/run"))
    assert request.checkpoint(load_config()) == run / "checkpoint.pth.tar"
    with pytest.raises(FileNotFoundError, match="no such weight file: ~nobody/x.pth"):
        read_weights("~nobody/x.pth")
    (tmp_path / "hrnet_w18").mkdir()
    assert published("hrnet_w18") is not None, "a name, whatever else has it"


def test_timms_name_of_the_small_network_stands_for_it() -> None:
    """Fault C4."""
    assert find_spec("hrnet_w18_small") == ARCHS["hrnet_w18_small_v1"]
    for name in ("hrnet_w18_small", "timm/hrnet_w18_small", "hrnet_w18_small.gluon_in1k"):
        entry = lookup(name)
        assert entry is not None and entry.name == "hrnet_w18_small_v1.timm"
    entry = lookup("hrnet_w18_ssld")
    assert entry is not None and entry.name == "hrnet_w18.timm_ssld"
    for name in ("hrnet_w18_smal", "hrnet_w18.", "timm/", ".ms_in1k", "hrnet_w18.ms"):
        assert lookup(name) is None
    settings = network_settings(None, "hrnet_w18_small", default_pretrained="hrnet_w18")
    assert settings == ["MODEL.PRETRAINED", "hrnet_w18_small", "MODEL.NAME", "hrnet_w18_small"]


def test_weights_that_are_nan_are_named_at_loading(whole: Weights, tmp_path: Path) -> None:
    """Fault C4."""
    broken = {name: value.clone() for name, value in whole.items()}
    broken["conv1.weight"][0, 0, 0, 0] = float("nan")
    broken["bn2.running_var"][1] = float("inf")
    said = load_weights(tiny_network(), WeightFile(Path("x"), broken, None))
    assert "[Warning] 2 hold NaN or infinite numbers (conv1.weight, bn2.running_var): what" in said
    assert not_finite(whole) == ""


def test_numbers_of_another_kind_are_not_taken_as_they_are(whole: Weights, tmp_path: Path) -> None:
    """Fault R6: a network quantised to int8 would compute nonsense."""
    quantised = dict(whole) | {"conv1.weight": whole["conv1.weight"].to(torch.int8)}
    with pytest.raises(ValueError, match=r"conv1.weight torch.int8 for torch.float32"):
        load_weights(tiny_network(), WeightFile(Path("x"), quantised, None))
    for value in (torch.ones(3, dtype=torch.complex64), torch.ones(3, 3).to_sparse()):
        content = dict(whole) | {"bn1.weight": value}
        assert "its tensor 'bn1.weight' is of a kind" in refused(saved(content, tmp_path / "x.pth"))


@pytest.mark.parametrize("size", [10**12, 2**62])
def test_a_tensor_that_states_more_numbers_than_it_holds_is_refused(
    size: int, weights: Weights, tmp_path: Path
) -> None:
    """Fault R6: before anything is computed with it."""
    content = dict(weights) | {"bn1.weight": torch.ones(1).expand(size)}
    assert "'bn1.weight' states" in refused(saved(content, tmp_path / "x.pth"))


def test_a_file_that_is_empty_or_a_pointer_says_so(tmp_path: Path) -> None:
    """Fault C4."""
    for name in ("x.pth", "x.safetensors", "x.pth.tar"):
        (tmp_path / name).write_bytes(b"")
        assert f"{name} is empty: " in refused(tmp_path / name)
    (tmp_path / "x.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a Git LFS pointer" in refused(tmp_path / "x.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_other_forms_of_networks_are_refused_by_name(weights: Weights, tmp_path: Path) -> None:
    """Fault C2: each with what to do."""
    torch.save(weights, tmp_path / "x.pth", pickle_protocol=4)
    assert "another pickle_protocol than torch.save's own" in refused(tmp_path / "x.pth")
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "x.pth"))
    assert "x.pth is a TorchScript program, not a file of weights: in" in refused(
        tmp_path / "x.pth"
    )
    saved({"model": torch.nn.Linear(1, 1)}, tmp_path / "x.pth")
    assert "plain weights, torch.nn.modules.linear.Linear, and is" in refused(tmp_path / "x.pth")


def test_damaged_files_are_refused_in_one_line(weights: Weights, tmp_path: Path) -> None:
    """Fault R6: cut short, with bytes flipped, or of another kind."""
    path = saved({"state_dict": weights}, tmp_path / "x.pth")
    content = path.read_bytes()
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes()
    for whole in (content, old):
        for num_bytes in (1, 40, 1000, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:num_bytes])
            assert "damaged" in refused(path), num_bytes
    for seed in range(12):
        rng = np.random.default_rng(seed)
        damaged = bytearray((content, old)[seed % 2][:4000])
        for place in rng.integers(0, 600, 5):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        refused(path)


def test_a_zip_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """Fault R6."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}q\x00.")
    content = (tmp_path / "x.pth").read_bytes()
    size = struct.pack("<I", 6)
    entry = content.rindex(b"PK\x01\x02") + 24  # the size in the archive's directory
    assert content[entry : entry + 4] == size
    huge = content[:entry] + struct.pack("<I", 2**32 - 2) + content[entry + 4 :]
    (tmp_path / "x.pth").write_bytes(huge)
    assert "would unpack" in refused(tmp_path / "x.pth")


# --- objects beside the weights


class Named:
    """Pickled as a class or function of another name, which need not exist here."""

    def __init__(self, name: str, reduced: tuple[object, ...] | None = None) -> None:
        self.name, self.reduced = name, reduced

    def __reduce__(self) -> object:
        return self.reduced or self.name


class Pickler(pickle._Pickler):  # Python's own is written in C and can't be told otherwise
    """Writes a Named as the global of its name, and what it is called with."""

    def save(self, obj: object, save_persistent_id: bool = True) -> object:
        if isinstance(obj, Named) and obj.reduced is None:
            module, _, name = obj.name.rpartition(".")
            self.write(b"c" + f"{module}\n{name}\n".encode())
            return None
        if isinstance(obj, Named):
            arguments, *state = obj.reduced
            self.save(Named(obj.name))
            self.save(arguments)
            self.write(pickle.REDUCE)
            if state:
                self.save(state[0])
                self.write(pickle.BUILD)
            return None
        return super().save(obj, save_persistent_id)


def dump(content: object, file: IO[bytes], protocol: int) -> None:
    Pickler(file, protocol).dump(content)


PICKLE = types.ModuleType("pickle_of_this_test")
vars(PICKLE).update(Pickler=Pickler, dump=dump)


def write(content: object, path: Path, *, is_old: bool = False) -> Path:
    torch.save(content, path, pickle_module=PICKLE, _use_new_zipfile_serialization=not is_old)
    return path


def test_objects_of_other_projects_are_read_as_inert_ones(weights: Weights, tmp_path: Path) -> None:
    """Fault C2: what timm's CheckpointSaver, torchvision's references and others leave."""
    content = {
        "state_dict": weights,
        "args": argparse.Namespace(lr=0.1, output=pathlib.Path("a/b"), classes=["x", "y", "z"]),
        "simple": types.SimpleNamespace(a=1),
        "logs": collections.defaultdict(list, a=collections.deque([1.0, 2.0], maxlen=5)),
        "metric": np.float64(0.5),
        "counts": np.arange(6, dtype=np.int32).reshape(2, 3),
        "names": np.array(["cat", "dog"]),
        "objects": np.array([1, None, "x"], dtype=object),
        "flag": np.bool_(True),
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
        "took": datetime.timedelta(seconds=5),
        "set": frozenset((1, 2)),
        "version": torch.torch_version.TorchVersion("2.6.0"),
        "type": dict,
    }
    for is_old in (False, True):
        path = write(content, tmp_path / "x.pth.tar", is_old=is_old)
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
        file = read_weights(path)
        assert_same(file.weights, weights)
        assert file.class_names == ("x", "y", "z")
        assert file.names_source == "args.classes in the file"
    with torch.serialization.safe_globals(STAND_INS):
        read = torch.load(path, weights_only=True)
    assert vars(read["args"])["output"] == "a/b" and vars(read["simple"])["a"] == 1
    assert read["metric"] == 0.5 and read["flag"] is True and read["version"] == "2.6.0"
    assert read["counts"].array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read["names"].array.tolist() == ["cat", "dog"] and read["objects"].array is None
    assert read["logs"] == {"a": [1.0, 2.0]} and read["set"] == {1, 2}
    assert read["when"].arguments


def test_each_allowed_name_is_read_and_its_project_is_not_imported(
    weights: Weights, tmp_path: Path
) -> None:
    """Fault C2: named, called, given a state, and filled as a mapping."""
    plain = {stand_ins.Inert, stand_ins._Mapping, stand_ins._Text, frozenset, stand_ins._items}
    before = set(sys.modules)
    content: dict[str, object] = {"state_dict": {"a": weights["conv1.weight"]}}
    for made, name in STAND_INS:
        content[name] = [Named(name)]
        if made in plain:
            content[f"{name}()"] = Named(name, (((),) if made is frozenset else (),))
        if made is stand_ins.Inert:
            content[f"{name}{{}}"] = Named(name, (("a", 1), {"b": [2]}))
        if made is stand_ins._Mapping:
            content[f"{name}{{}}"] = Named(name, (({"a": 1},), {"b": [2]}))
    for is_old in (False, True):
        path = write(content, tmp_path / "x.pth", is_old=is_old)
        assert list(read_weights(path).weights) == ["a"]
    projects = {name.partition(".")[0] for _, name in STAND_INS} - {"torch", "numpy"}
    assert not {m.partition(".")[0] for m in set(sys.modules) - before} & projects


@pytest.mark.parametrize(
    "name",
    [
        "os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.open",
        "builtins.__import__", "io.open", "numpy.load", "numpy.fromfile", "subprocess.Popen",
        "importlib.import_module", "pickle.loads", "torch.load", "torch.hub.load", "runpy.run_path",
        "functools.partial", "operator.attrgetter", "shutil.rmtree",
        "lib.runtime.files.write_atomically", "argparse.FileType", "pathlib.Path.touch",
        "numpy.memmap", "codecs.open", "my.Own",
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_not_called_and_named_in_one_line(
    name: str, weights: Weights, tmp_path: Path
) -> None:
    """Fault C2."""
    marker = tmp_path / "touched"
    arguments = {
        "os.system": (f"touch {marker}",),
        "posix.system": (f"touch {marker}",),
        "builtins.eval": (f"open({str(marker)!r}, 'w')",),
        "builtins.exec": (f"open({str(marker)!r}, 'w')",),
        "subprocess.Popen": (["touch", str(marker)],),
    }.get(name, (str(marker), "w"))
    for is_old in (False, True):
        content = {"state_dict": weights, "x": Named(name, (arguments,))}
        path = write(content, tmp_path / "x.pth", is_old=is_old)
        said = refused(path)
        assert f"{name.removeprefix('builtins.')}, and is not opened" in said
        assert said.endswith(
            "in the program that wrote it, save its state_dict alone with torch.save"
        )
        assert not marker.exists()


def test_nothing_is_reached_through_what_is_allowed(weights: Weights, tmp_path: Path) -> None:
    """Fault C2: `getattr` and the like are stand-ins too."""
    marker = tmp_path / "touched"
    reached = Named("builtins.getattr", ((Named("argparse.Namespace"), "__init__"),))
    for content in (
        {"a": Named("builtins.getattr", ((Named("torch.Tensor"), "tofile"),))},
        {"a": Named("numpy.dtype", (("O",), (3, "|", None, None, None, -1, -1, 63)))},
        {"a": Named("argparse.Namespace", ((), {"__class__": "x", "__dict__": {}, "__init__": 1}))},
        {"a": Named("pathlib.PosixPath", ((reached, str(marker)),))},
    ):
        path = write({"state_dict": weights, **content}, tmp_path / "x.pth")
        assert_same(read_weights(path).weights, weights)
    assert not marker.exists()
    vast = Named(
        "numpy.ndarray", ((), (1, (2**40,), Named("numpy.dtype", (("f8",),)), False, b"x"))
    )
    assert "damaged" in refused(write({"state_dict": weights, "a": vast}, tmp_path / "x.pth"))
    called = {"state_dict": weights, "a": vast, "b": Named("\x1b[31m.x\x07", ((),))}
    called.pop("a")
    assert "\\x1b[31m.x\\x07" in refused(write(called, tmp_path / "x.pth"))


def test_a_label_encoder_names_the_classes(weights: Weights, tmp_path: Path) -> None:
    """Fault S2: scikit-learn's, as it is often saved along."""
    encoder = Named(
        "sklearn.preprocessing._label.LabelEncoder", ((), {"classes_": np.array(["x", "y", "z"])})
    )
    file = read_weights(write({"net": weights, "encoder": encoder}, tmp_path / "x.pth"))
    assert file.class_names == ("x", "y", "z")
    assert file.names_source == "encoder.classes_ in the file"


def test_arrays_of_numpy_are_weights_too(weights: Weights, tmp_path: Path) -> None:
    """Fault C2."""
    arrays = {name: value.numpy() for name, value in weights.items()}
    arrays["bn1.weight"] = arrays["bn1.weight"].astype(">f4")
    arrays["classifier.weight"] = np.asfortranarray(arrays["classifier.weight"])
    assert_same(read_weights(saved(arrays, tmp_path / "x.pth")).weights, weights)
    (tmp_path / "y.pth").write_bytes(pickle.dumps(arrays, protocol=2))
    assert_same(read_weights(tmp_path / "y.pth").weights, weights)
    arrays["bn1.weight"] = arrays["bn1.weight"].astype(np.longdouble)
    read = read_weights(saved(arrays, tmp_path / "x.pth")).weights
    assert read.keys() == weights.keys() - {"bn1.weight"}


# --- tensors that torch_npu saved


def as_npu_tensor(value: Tensor, npu_format: object) -> Named:
    """As torch_npu up to 2.0, 2.7.1 and 2.8.0 reduces a tensor of an NPU: its copy on the host."""
    host = value.detach()
    return Named(
        "torch_npu.utils.storage._rebuild_npu_tensor",
        (
            (
                host._typed_storage(),
                host.storage_offset(),
                tuple(host.size()),
                host.stride(),
                False,
                collections.OrderedDict(),
                npu_format,
            ),
        ),
    )


def as_tensor_with_metadata(value: Tensor, npu_format: str) -> Named:
    """As torch_npu 2.1 to 2.6, and from 2.9 on, reduces it: torch's way, with its memory's form."""
    sizes = "/".join(map(str, value.shape))
    metadata = {f"base_sizes_/{sizes}/": True, f"npu_format_/{npu_format}": True}
    name, ((*arguments, _), *_) = "torch._utils._rebuild_tensor_v2", as_npu_tensor(value, 0).reduced
    return Named(name, ((*arguments, metadata),))


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
    "npu_format",
    [
        2,
        29,
        True,
        Named("torch_npu.npu._format.Format", ((2,),)),
        Named("torch_npu.npu._format.Format", ((29,),)),
        Named("builtins.getattr", ((Named("torch_npu.npu._format.Format"), "ND"),)),
    ],
    ids=["ND", "FRACTAL_NZ", "flag", "Format.ND", "Format.FRACTAL_NZ", "by name"],
)
def test_weights_that_were_saved_on_an_npu_are_read_without_one(
    npu_format: object, is_old: bool, weights: Weights, tmp_path: Path
) -> None:
    """Fault C3: the numbers are in the usual order, whatever the format on the NPU was."""
    content = {name: as_npu_tensor(value, npu_format) for name, value in weights.items()}
    strided = weights["classifier.weight"].t().contiguous().t()
    content["classifier.weight"] = as_npu_tensor(strided, npu_format)
    wrapped = ((content["conv1.weight"], True, collections.OrderedDict()),)
    content["conv1.weight"] = Named("torch._utils._rebuild_parameter", wrapped)
    path = write({"state_dict": content}, tmp_path / "x.pth.tar", is_old=is_old)
    assert "torch_npu" not in sys.modules
    assert_same(read_weights(path).weights, weights)


@pytest.mark.parametrize("npu_format", ["ND", "NCHW", "FRACTAL_Z"])
def test_weights_whose_storages_were_on_an_npu_are_read_without_one(
    npu_format: str, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault C3: torch_npu's own zip files hold the usual order; the older form a raw copy."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "npu:0")
    content = {name: as_tensor_with_metadata(v, npu_format) for name, v in weights.items()}
    path = write({"state_dict": content}, tmp_path / "x.pth")
    assert b"npu:0" in path.read_bytes()
    assert_same(read_weights(path).weights, weights)
    path = write({"state_dict": content}, tmp_path / "x.pth", is_old=True)
    if npu_format == "FRACTAL_Z":
        assert "holds numbers in an NPU's own order (FRACTAL_Z)" in refused(path)
    else:
        assert_same(read_weights(path).weights, weights)
