"""Options as people write them: unknown, twice, or as another project's programs take them."""

import sys
from pathlib import Path

import _common
import finetune
import pytest
import train
import valid

from lib.runtime.cli import ArgumentParser, whole_number
from lib.runtime.environment import LAUNCH_VARIABLE


def parser() -> ArgumentParser:
    """A parser with options as train.py has them."""
    made = ArgumentParser("A program.")
    add = made.add_argument
    add("data", nargs="?")
    add("overrides", nargs="*")
    add("--lr", type=float)
    add("--train_epochs", "--epochs", type=whole_number)
    add("--bs", "--batch_size", type=whole_number)
    add("--device_id")
    add("--cards")
    add("--workers")
    add("--fp32", action="store_true")
    return made


@pytest.fixture
def request_of(monkeypatch, tmp_path):
    """Run a script's main up to where devices are chosen; return what it would work with."""
    monkeypatch.chdir(tmp_path)
    for name in ("ALLOW_FP32", "ALLOW_HF32", "ASCEND_DEVICE_ID", "RANK", "PROFILE_TYPE"):
        monkeypatch.delenv(name, raising=False)

    def run(script, *words):
        calls = []
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, words)])
        monkeypatch.setattr(_common, "run_on_cards", lambda *a, **k: calls.append((a, k)))
        assert script.main() == 0
        ((args, *_), keywords) = calls[0]
        return args, keywords

    return run


@pytest.mark.parametrize("parse", ["parse_args", "parse_intermixed_args"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epoch", "3"], "unknown option --epoch: did you mean --train_epochs?"),
        (["--num-epochs=3"], "unknown option --num-epochs: did you mean --train_epochs?"),
        (["--learning_rate", "3"], "unknown option --learning_rate: did you mean --lr?"),
        (["--batch-size", "3"], "unknown option --batch-size: did you mean --batch_size?"),
        (["--train", "3"], "unknown option --train: did you mean --train_epochs?"),
        (["--gpus", "3"], "unknown option --gpus: did you mean --cards?"),
        (["--num_workers", "3"], "unknown option --num_workers: did you mean --workers?"),
        (["--FP32"], "unknown option --FP32: did you mean --fp32?"),
        (["--quux"], "unknown option --quux (--help lists"),
        (["--\x1b[31m"], r"unknown option --\x1b[31m (--help"),
        (["--TRAIN.LR", "3"], "--TRAIN.LR: config keys have no dashes, TRAIN.LR VALUE"),
        (["--TRAIN.LR=3"], "--TRAIN.LR: config keys have no dashes, TRAIN.LR 3"),
        (["-x"], "unrecognized arguments: -x"),
    ],
)
def test_an_unknown_option_is_told_with_the_nearest(parse, words, said, capsys):
    """Fault M5: `--epochs` was unknown, without a word of what it may be."""
    with pytest.raises(SystemExit) as leaving:
        getattr(parser(), parse)(["data", *words])
    assert leaving.value.code == 2
    assert said in capsys.readouterr().err


def test_epochs_is_another_name_of_train_epochs(request_of, tmp_path):
    """Fault M5."""
    _, keywords = request_of(train, tmp_path, "--epochs", "7")
    config, _ = keywords["work"].args
    assert config.TRAIN.END_EPOCH == 7


def test_a_word_that_only_looks_like_an_option_is_none(capsys):
    args = parser().parse_intermixed_args(["--lr", "1", "data", "KEY", "--a text", "--", "--quux"])
    assert args.overrides == ["KEY", "--a text", "--quux"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lr", "1", "--lr=2"], "[Warning] --lr is given twice: '2' counts, not '1'\n"),
        (["--bs=1", "--batch_size", "2"], "[Warning] --batch_size is given twice: '2' counts"),
        (["--lr", "1", "--lr", "1", "--fp32", "--fp32", "--bs", "1"], ""),
    ],
)
def test_an_option_that_is_given_twice_is_said_with_what_counts(words, said, monkeypatch, capsys):
    """Fault S12: of two equal options the last won without a word."""
    parser().parse_intermixed_args(words)
    stderr = capsys.readouterr().err
    assert stderr.startswith(said) and stderr.count("\n") == bool(said)
    monkeypatch.setenv(LAUNCH_VARIABLE, "x")
    parser().parse_intermixed_args(words)
    assert capsys.readouterr().err == "", "the processes of a run don't repeat it"


def test_a_key_that_is_given_twice_is_said_by_the_script(request_of, tmp_path, capsys):
    """Fault S12."""
    request_of(train, tmp_path, "--lr", "0.5", "TRAIN.LR", "0.1", "TRAIN.LR", "0.2")
    said = "[Warning] TRAIN.LR is given twice: '0.2' counts, not '0.1'\n"
    assert capsys.readouterr().out == said, "but an option and a key are no mistake"


@pytest.mark.parametrize("text", ["٣", "1_0", "1.0", "", " 1", "9" * 5000])
def test_a_whole_number_is_written_in_ascii(text, capsys):
    """Fault R6: int() takes underscores and the digits of any script."""
    with pytest.raises(SystemExit) as leaving:
        parser().parse_args([f"--bs={text}"])
    assert leaving.value.code == 2
    assert "is no whole number" in capsys.readouterr().err


# ---- as the official HRNet and the ModelZoo call their scripts ----


@pytest.mark.parametrize("flag", ["--data_path", "--dataDir"])
def test_the_data_path_may_be_an_option(flag, request_of, tmp_path):
    """Fault M6."""
    _, keywords = request_of(train, f"{flag}={tmp_path}", "TRAIN.LR", "0.2", "--modelDir", "runs")
    config, request = keywords["work"].args
    assert (request.data_path, config.TRAIN.LR) == (tmp_path, 0.2)
    assert request.folder.is_relative_to("runs")


def test_log_and_output_folders_have_their_official_names_too(request_of, tmp_path):
    """Fault M6."""
    args, keywords = request_of(valid, tmp_path, "--logDir", "logs here", "--modelDir", "runs")
    assert keywords["log_dir"] == Path("logs here")
    assert args.modelDir == "runs"


def test_the_yamls_own_root_may_lie_in_the_folder_of_an_option(request_of, tmp_path):
    """Fault M6: the official scripts join --dataDir and DATASET.ROOT."""
    (tmp_path / "data/imagenet/train").mkdir(parents=True)
    words = ["DATASET.ROOT", "data/imagenet/"]
    _, keywords = request_of(train, "--dataDir", tmp_path, *words)
    assert keywords["work"].args[1].data_path == tmp_path / "data/imagenet"
    (tmp_path / "train").mkdir()
    _, keywords = request_of(train, "--dataDir", tmp_path, *words)
    assert keywords["work"].args[1].data_path == tmp_path


def test_a_yaml_with_whole_paths_of_its_parts_needs_no_data_path(request_of, tmp_path):
    """Fault M6: the ModelZoo's yaml has absolute TRAIN_SET and TEST_SET, and a ROOT of its own."""
    parts = {"TRAIN_SET": tmp_path / "a" / "train", "TEST_SET": tmp_path / "b" / "val"}
    words = [word for key, path in parts.items() for word in (f"DATASET.{key}", path)]
    _, keywords = request_of(train, *words, "DATASET.ROOT", "data/imagenet/")
    config, request = keywords["work"].args
    assert request.data_path == tmp_path / "a"
    assert Path(request.data_path, config.DATASET.TEST_SET) == parts["TEST_SET"]


def test_a_data_path_is_given_once(request_of, tmp_path):
    with pytest.raises(ValueError, match="the data path is given twice: '.*', and --data_path"):
        request_of(train, tmp_path, "--data_path", tmp_path)


def test_a_key_with_its_value_is_no_data_path(request_of):
    """Fault R6: it was looked for as a folder."""
    with pytest.raises(ValueError, match="key and value are two words: TRAIN.LR 0.1"):
        request_of(train, "TRAIN.LR=0.1")


def test_the_help_of_finetune_says_both_layouts(monkeypatch, capsys):
    """Fault M5: it spoke of train/ and val/ alone."""
    monkeypatch.setattr(sys, "argv", ["finetune.py", "--help"])
    with pytest.raises(SystemExit):
        finetune.main()
    text = " ".join(capsys.readouterr().out.split())
    assert "a folder of pictures for each class, or train/ and val/" in text
