"""The launchers' options: what reaches the program, from where, and what is refused."""

import os
from pathlib import Path

import pytest
from launcher_sandbox import LAUNCHERS, Repository, only_error_line

W18 = "cls_hrnet_w18_sgd_lr5e-2_wd1e-4_bs32_x100"


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    """A fresh copy of the scripts."""
    return Repository(tmp_path)


# ---- what reaches the program ----


def test_a_full_run_passes_the_documented_defaults(repo: Repository) -> None:
    assert repo.run("train_full_1p.sh").returncode == 0
    assert repo.record["script"] == "tools/train.py"
    assert repo.words == [
        str(repo.data), "--out", f"output/imagenet/{W18}", "--log_dir", "test/output/0",
        "--cfg", f"experiments/{W18}.yaml", "--cards", "1", "--nproc", "1", "--dn", "0",
        "--addr", "127.0.0.1", "--lr", "0.1", "--train_epochs", "100", "--bs", "256",
        "--device_id", "0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("launcher", "cards", "epochs", "stop_step"),
    [
        ("train_full_1p.sh", "1", "100", None),
        ("train_full_8p.sh", "8", "100", None),
        ("train_performance_1p.sh", "1", "1", "200"),
        ("train_performance_8p.sh", "8", "1", "200"),
    ],
)
def test_each_launcher_has_its_own_cards_epochs_and_steps(
    repo: Repository, launcher: str, cards: str, epochs: str, stop_step: str | None
) -> None:
    assert repo.run(launcher).returncode == 0
    passed = [repo.passed(name) for name in ("--cards", "--train_epochs", "--stop_step")]
    assert passed == [cards, epochs, stop_step]
    environment = repo.record["environment"]
    assert environment == {
        "ASCEND_DEVICE_ID": "0",
        "RANK_SIZE": cards,
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.mark.parametrize("joined", [True, False])
def test_every_option_reaches_the_program_in_both_spellings(repo: Repository, joined: bool) -> None:
    """Pitfalls 1, 35 and 37: values with blanks, quotes and dollars arrive as they are."""
    values = {
        "cards": "2", "nproc": "3", "dn": "0", "addr": "node $1", "port": "29600", "lr": "5e-2",
        "workers": "0", "train_epochs": "7", "bs": "32", "device": "cpu", "device_id": "3",
        "stop_step": "11", "resume": "it's *.tar", "pretrained": 'a "b" `c`', "seed": "0",
        "cfg": "experiments/my w48.yaml",
    }  # fmt: skip
    words = [
        word
        for name, text in values.items()
        for word in ([f"--{name}={text}"] if joined else [f"--{name}", text])
    ]
    result = repo.run("train_full_8p.sh", *words, "--auto_resume", "--fp32")
    assert result.returncode == 0, result.stderr
    assert {name: repo.passed(f"--{name}") for name in values} == values
    assert "--auto_resume" in repo.words
    assert "--fp32" in repo.words
    assert "--hf32" not in repo.words


@pytest.mark.parametrize("word", ["--batch_size=64", "--bs=64"])
@pytest.mark.parametrize("launcher", ["train_full_1p.sh", "train_eval_1p.sh"])
def test_batch_size_is_another_name_of_bs(repo: Repository, launcher: str, word: str) -> None:
    assert repo.run(launcher, word).returncode == 0
    assert repo.passed("--bs") == "64"


def test_epochs_is_another_name_of_train_epochs(repo: Repository) -> None:
    """Fault M5."""
    assert repo.run("train_full_1p.sh", "--epochs=7").returncode == 0
    assert repo.passed("--train_epochs") == "7"


@pytest.mark.parametrize(("given", "steps"), [("3", "3"), ("TRUE", "200"), ("true", "200")])
def test_stop_step_is_a_number_and_its_old_value_true_means_200(
    repo: Repository, given: str, steps: str
) -> None:
    """Pitfall 2: three steps are three steps."""
    assert repo.run("train_performance_1p.sh", f"--stop_step={given}").returncode == 0
    assert repo.passed("--stop_step") == steps


def test_config_overrides_after_two_dashes_come_last(repo: Repository) -> None:
    result = repo.run("train_full_1p.sh", "--bs=8", "--", "AUG.HFLIP", "0.0", "TRAIN.WD", "1 e")
    assert result.returncode == 0
    assert repo.words[-4:] == ["AUG.HFLIP", "0.0", "TRAIN.WD", "1 e"]


def test_the_last_of_two_equal_options_counts(repo: Repository) -> None:
    """Fault S12: and is said to."""
    result = repo.run("train_full_1p.sh", "--bs=8", "--lr=1", "--batch_size", "16", "--lr=1")
    assert result.returncode == 0
    assert repo.passed("--bs") == "16"
    assert result.stderr == '[Warning] --bs is given twice: "16" counts, not "8"\n'


@pytest.mark.parametrize("option", ["fp32", "hf32"])
@pytest.mark.parametrize("launcher", ["train_full_1p.sh", "train_eval_1p.sh"])
def test_the_environment_chooses_a_precision_as_the_flag_does(
    repo: Repository, launcher: str, option: str
) -> None:
    variable = f"ALLOW_{option.upper()}"
    for word in ("1", "Yes"):
        assert repo.run(launcher, **{variable: word}).returncode == 0
        assert f"--{option}" in repo.words
    environment = repo.record["environment"]
    assert isinstance(environment, dict)
    assert variable not in environment


@pytest.mark.parametrize("word", ["0", "false", "NO", "off", ""])
def test_allow_fp32_set_to_a_no_means_no(repo: Repository, word: str) -> None:
    """Pitfall 9: ALLOW_FP32=0 means no, and is no conflict with --hf32."""
    assert repo.run("train_full_1p.sh", "--hf32", ALLOW_FP32=word).returncode == 0
    assert "--fp32" not in repo.words
    assert "--hf32" in repo.words


def test_a_flag_given_as_no_wins_over_the_environment(repo: Repository) -> None:
    assert repo.run("train_full_1p.sh", "--fp32=no", ALLOW_FP32="1").returncode == 0
    assert "--fp32" not in repo.words


def test_the_device_of_the_environment_wins_and_is_said(repo: Repository) -> None:
    result = repo.run("train_full_1p.sh", "--device_id=2", ASCEND_DEVICE_ID="5")
    assert "device id is 5\n" in result.stdout
    assert repo.passed("--device_id") == "5"
    assert (repo.root / "test/output/5/train_5.log").is_file()


def test_rank_size_is_the_default_number_of_cards_of_8p_only(repo: Repository) -> None:
    repo.run("train_full_8p.sh", RANK_SIZE="4")
    assert repo.passed("--cards") == "4"
    repo.run("train_full_8p.sh", "--cards=2", RANK_SIZE="4")
    assert repo.passed("--cards") == "2"
    repo.run("train_full_1p.sh", RANK_SIZE="4")
    assert repo.passed("--cards") == "1"


# ---- where it runs ----


@pytest.mark.parametrize("place", ["", "test", "elsewhere"])
def test_relative_paths_are_meant_from_the_callers_directory(repo: Repository, place: str) -> None:
    """Pitfalls 10 and 35: from the root, from test/ and from anywhere, with blanks in the path."""
    cwd = repo.root / place
    for folder in ("images here", "yamls"):
        (cwd / folder).mkdir(parents=True)
    (cwd / "yamls/w30.yaml").touch()
    (cwd / "old.tar").touch()
    script = os.path.relpath(repo.root / "test/train_full_1p.sh", cwd)
    words = ["--data_path=images here", "--cfg=yamls/w30.yaml", "--pretrained", "old.tar"]
    result = repo.run_words(["bash", script, *words], cwd=cwd)
    assert result.returncode == 0, result.stderr
    assert repo.words[0] == str(cwd / "images here")
    assert repo.passed("--cfg") == str(cwd / "yamls/w30.yaml")
    assert repo.passed("--pretrained") == str(cwd / "old.tar")
    assert repo.record["cwd"] == str(repo.root)
    assert (repo.root / "output/imagenet/w30/result.json").is_file()


def test_a_relative_run_folder_is_the_callers_and_gets_the_result(repo: Repository) -> None:
    cwd = repo.root / "test"
    assert repo.run("train_full_1p.sh", "--out", "my run", cwd=cwd).returncode == 0
    assert (cwd / "my run/result.json").is_file()


def test_the_default_recipe_is_this_repositorys_whatever_the_caller_has(repo: Repository) -> None:
    cwd = repo.root / "another checkout"
    (cwd / "experiments").mkdir(parents=True)
    (cwd / f"experiments/{W18}.yaml").touch()
    assert repo.run("train_full_1p.sh", cwd=cwd).returncode == 0
    assert repo.passed("--cfg") == f"experiments/{W18}.yaml"


@pytest.mark.parametrize("address", ["http://host:8000/set", "https://host/a b"])
def test_the_address_of_a_packed_data_set_reaches_the_program_as_it_is(
    repo: Repository, address: str, tmp_path: Path
) -> None:
    assert repo.run("train_full_1p.sh", f"--data_path={address}", cwd=tmp_path).returncode == 0
    assert repo.record["words"][0] == address


def test_a_home_directory_written_as_a_tilde_is_found(repo: Repository) -> None:
    script = str(repo.root / "test/train_full_1p.sh")
    assert repo.run_words(["bash", script, "--data_path=~/my images"]).returncode == 0
    assert repo.words[0] == str(repo.data)


# ---- what is refused ----


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("words", [[], ["--data_path="], ["--data_path", "--bs=3"]])
def test_without_a_data_path_the_known_line_is_printed(
    repo: Repository, launcher: str, words: list[str]
) -> None:
    """Pitfall 35: the line is printed, not run as a command."""
    result = repo.run_words(["bash", str(repo.root / "test" / launcher), *words])
    assert result.returncode == 1
    assert result.stdout == '[Error] para "data_path" must be confing\n'
    assert result.stderr == ""
    assert not repo.was_started


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_an_unknown_option_is_named_with_the_known_ones(repo: Repository, launcher: str) -> None:
    result = repo.run(launcher, "--batchsize=3")
    assert result.returncode == 2
    error = only_error_line(result)
    assert '"--batchsize": did you mean --batch_size?' in error
    assert "--data_path" in error
    assert "--batch_size" in error
    assert not repo.was_started


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--hf32", "--fp32"], "hf32 and fp32 exclude each other"),
        (["--dn=1"], "--dn must be below --nproc: machine 1 of 1"),
        (["--nproc=2", "--dn", "2"], "--dn must be below --nproc: machine 2 of 2"),
        (["--bs=many"], '--bs must be a whole number from 1, got "many"'),
        (["--bs=0"], '--bs must be a whole number from 1, got "0"'),
        (["--cards=1.5"], '--cards must be a whole number from 1, got "1.5"'),
        (["--train_epochs", "-3"], '--train_epochs must be a whole number from 1, got "-3"'),
        (["--stop_step=FALSE"], '--stop_step must be a whole number from 1, got "FALSE"'),
        (["--lr=fast"], '--lr must be a number from 0, got "fast"'),
        (["--workers=-2"], '--workers must be a whole number from 0, or -1'),
        (["--device_id=../.."], '--device_id must be a whole number from 0, got "../.."'),
        (["--seed=0x1"], '--seed must be a whole number from 0, got "0x1"'),
        (["--nproc=99999999999999999999"], "--nproc must be a whole number"),
        (["--bs"], "--bs needs a value"),
        (["--cfg", "--fp32"], "--cfg needs a value"),
        (["--pretrained="], "--pretrained needs a value"),
        (["--fp32=perhaps"], "--fp32=perhaps: give 1, true, yes or on"),
        (["resnet"], 'unexpected argument "resnet"'),
        (["--", "TRAIN.LR"], "config overrides come in pairs"),
        (["--a[$(touch pwned)]=1"], "unknown option"),
        (["--cfg addr=1"], 'unknown option "--cfg addr"'),
        (["--learning-rate=1"], 'unknown option "--learning-rate": did you mean --lr?'),
        (["--qqqq"], 'unknown option "--qqqq", allowed: --data_path'),
        (["--TRAIN.LR=1"], 'unknown option "--TRAIN.LR": config overrides come after --, as --'),
        (["--x\x1b[31m"], 'unknown option "--x?[31m"'),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_error_line_and_exit_code_2(
    repo: Repository, words: list[str], said: str
) -> None:
    result = repo.run("train_full_8p.sh", *words)
    assert result.returncode == 2
    assert said in only_error_line(result)
    assert not repo.was_started
    assert not (repo.root / "test/output").exists()
    assert not (repo.root / "pwned").exists()


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("ALLOW_FP32", "maybe", "ALLOW_FP32=maybe: give 1, true, yes or on"),
        ("ASCEND_DEVICE_ID", "../0", 'ASCEND_DEVICE_ID must be a whole number from 0, got "../0"'),
        ("RANK_SIZE", "eight", '--cards must be a whole number from 1, got "eight"'),
    ],
)
def test_what_cannot_be_used_in_the_environment_is_refused_too(
    repo: Repository, variable: str, text: str, said: str
) -> None:
    result = repo.run("train_full_8p.sh", **{variable: text})
    assert result.returncode == 2
    assert said in only_error_line(result)


def test_the_flag_of_one_precision_and_the_variable_of_the_other_exclude_each_other(
    repo: Repository,
) -> None:
    """Pitfall 9."""
    result = repo.run("train_full_1p.sh", "--fp32", ALLOW_HF32="yes")
    assert result.returncode == 2
    assert "exclude each other" in only_error_line(result)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_help_lists_every_option_with_its_default(repo: Repository, launcher: str) -> None:
    """Pitfall 1."""
    result = repo.run(launcher, "--bs=3", "--help")
    assert result.returncode == 0
    assert f"bash test/{launcher} --data_path=DIR" in result.stdout
    assert "--bs            images a batch and card [256]" in result.stdout
    if "performance" in launcher:
        assert "TRUE means 200 [200]" in result.stdout
    assert not repo.was_started


@pytest.mark.parametrize("script", ["test/quickstart.sh", "test/run_tests.sh", ".ci/run"])
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_of_the_other_scripts_starts_nothing(repo: Repository, script: str, word: str) -> None:
    """Fault M5: they began to install, to train and to test."""
    result = repo.run_words(["bash", script, "-x", word])
    assert (result.returncode, result.stderr) == (0, "")
    assert "--help shows this text" in result.stdout and "set -euo" not in result.stdout
    assert not repo.was_started
