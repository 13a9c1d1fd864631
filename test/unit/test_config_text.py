"""Yaml text and command-line overrides: what would be lost, endless or more than it seems."""

from pathlib import Path

import pytest

from lib.config.load import load_config
from lib.config.overrides import repeats
from lib.config.yaml_text import read_yaml
from lib.models.build import network_spec


def written(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    """Write an experiment file."""
    (folder / name).write_text(text)
    return folder / name


def refused(text: str) -> str:
    """The one line with which a text is refused."""
    with pytest.raises(ValueError, match=".") as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


# ---- the same key twice ----


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("TRAIN:\n  LR: 0.01\nSEED: 1\nTRAIN:\n  WD: 0\n", (4, 1)),
        ("TRAIN:\n  LR: 0.01\n  WD: 0\n  LR: 0.1\n", (4, 2)),
        ("TRAIN: {LR: 1, WD: 0, LR: 2}", (1, 1)),
        ('TRAIN: {LR: 1}\n"TRAIN": {WD: 0}\n', (2, 1)),
        ("a: [{b: 1,\n b: 1}]", (2, 1)),
        ("1: a\n1: b", (2, 1)),
        ("true: a\nyes: b", (2, 1)),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: *a", (4, 3)),
    ],
)
def test_a_key_that_stands_twice_is_an_error_with_both_lines(text, lines):
    """Fault S12: the last one won, and what the first had set was lost."""
    later, earlier = lines
    message = refused(text)
    assert message.startswith(f"line {later}: ")
    assert f"a second time, after line {earlier}," in message


def test_a_key_that_stands_twice_is_found_in_a_base_and_in_extra_too(tmp_path):
    """Fault S12."""
    base = written(tmp_path, "TRAIN: {LR: 1}\nTRAIN: {WD: 1}", "base.yaml")
    with pytest.raises(ValueError, match=f"^{base}: line 2: TRAIN stands here a second time"):
        load_config(written(tmp_path, "_BASE_: base.yaml"))
    stage = "{NUM_MODULES: 1,\n NUM_MODULES: 2}"
    with pytest.raises(ValueError, match="line 2: NUM_MODULES stands here a second time"):
        load_config(written(tmp_path, f"MODEL: {{EXTRA: {{STAGE1: {stage}}}}}"))
    with pytest.raises(ValueError, match="override MODEL.EXTRA: .* X stands here a second time"):
        load_config(None, ["MODEL.EXTRA", "{X: 1, X: 2}"])


def test_merged_blocks_and_aliases_stay_what_they_are():
    """Fault S12: a block's own key wins over a merged one, and of merged blocks the first wins."""
    tree = read_yaml("a: &a {lr: 1, wd: 2}\nb: &b {<<: *a, lr: 3}\nc: {<<: [*b, *a], z: [*a, *a]}")
    first = {"lr": 1, "wd": 2}
    assert tree == {
        "a": first,
        "b": {"lr": 3, "wd": 2},
        "c": {"lr": 3, "wd": 2, "z": [first, first]},
    }
    with pytest.raises(ValueError, match="line 1, column 9: << merges blocks of keys"):
        read_yaml("a: {<<: 5}")


def test_a_key_given_twice_on_a_command_line_is_remarked():
    """Fault S12: the last one counts, which is said unless both agree."""
    words = ["TRAIN.LR", "0.1", "SEED", "3", "TRAIN.LR", "0.2", "SEED", "3"]
    assert repeats(words) == ["TRAIN.LR is given twice: '0.2' counts, not '0.1'"]
    assert load_config(None, words).TRAIN.LR == 0.2
    assert repeats(["TRAIN.LR"]) == []


# ---- endless, deep, large ----


def _unfolding(first: str, entry: str) -> str:
    """Blocks of which each has nine times what the one before it has."""
    lines = [f"l0: &l0 {first}"]
    lines += [f"l{n}: &l{n} {entry % ', '.join([f'*l{n - 1}'] * 9)}" for n in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a\n  b: *a", "line 2: *a stands within what it stands for, &a"),
        ("a: &a [*a]", "line 1: *a stands within"),
        ("a: &a {<<: *a}", "line 1: *a stands within"),
        ("[" * 5000, "line 1: more than 20 blocks within each other"),
        ("{a: " * 5000, "line 1: more than 20 blocks within each other"),
        ("- " * 5000, "line 1: more than 20 blocks within each other"),
        (_unfolding("[1, 1]", "[%s]"), "more than 5000 values, with aliases opened"),
        (_unfolding("{a: 1}", "{<<: [%s]}"), "more than 5000 values, with aliases opened"),
        ("l0: &l0 [1]\n" + "\n".join(f"l{n}: &l{n} [*l{n - 1}]" for n in range(1, 40)),
         "more than 20 blocks within each other"),
        (f"[{'1, ' * 6000}]", "more than 5000 values"),
        ("9" * 5000, "'9999"),
        ("a: 2020-13-45", "line 1, column 4: '2020-13-45': month must be in 1..12"),
        ("a: !!int x", "line 1: the tag tag:yaml.org,2002:int has no meaning"),
        ("!!python/object/apply:os.getcwd []", "has no meaning: leave it out"),
        ("a: *b", "line 1, column 4: found undefined alias 'b'"),
        ("--- 1\n--- 2", "line 2, column 1: expected a single document"),
        ("? [a]\n: 1", "found unhashable key"),
        ("a: \x1b[31m", "special characters are not allowed"),
        ("a: 'b", "while scanning a quoted scalar"),
        ("a:\n\tb: 1", "line 2, column 1: "),
    ],
)  # fmt: skip
def test_text_without_end_or_measure_is_refused_in_one_line(text, said):
    """Fault R6: aliases within themselves, brackets by thousands, lists that unfold."""
    assert said in refused(text)


@pytest.mark.parametrize("text", ["0", "[]", "false", "''"])
def test_a_file_that_says_something_else_than_keys_is_no_empty_one(text, tmp_path):
    """Fault R6."""
    with pytest.raises(ValueError, match="a mapping of keys is needed, not a"):
        load_config(written(tmp_path, text))


def test_a_file_that_is_no_experiment_by_its_size_is_not_read(tmp_path):
    """Fault R6."""
    with pytest.raises(ValueError, match="recipe.yaml has 2000000 bytes and an experiment"):
        load_config(written(tmp_path, "#" * 2_000_000))


# ---- numbers ----


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("TRAIN.LR", "1" * 401, "is not a finite number"),
        ("TRAIN.LR", "1e400", "TRAIN.LR: inf is not a finite number"),
        ("TRAIN.LR", "1.0e+400", "TRAIN.LR: inf is not a finite number"),
        ("TRAIN.LR", "1" * 5000, "is not a yaml value"),
        ("TRAIN.LR", "[" * 5000, "is not a yaml value"),
        ("TRAIN.LR", "٣", "is a str, float is needed"),
        ("TRAIN.LR", "1_0", "TRAIN.LR: '1_0' is a str, float is needed"),
        ("TRAIN.LR", "1e300", "TRAIN.LR: 1e+300 must be within [0, 1e+38]"),
        ("TRAIN.END_EPOCH", "010", "TRAIN.END_EPOCH: '010' is a str, int is needed"),
        ("TRAIN.END_EPOCH", "1:30", "TRAIN.END_EPOCH: '1:30' is a str, int is needed"),
        ("TRAIN.END_EPOCH", "0x10", "TRAIN.END_EPOCH: '0x10' is a str, int is needed"),
        ("TRAIN.END_EPOCH", "1" * 401, "must be within [1, 1000000]"),
        ("TRAIN.END_EPOCH", "true", "True is a bool, int is needed"),
        ("TRAIN.LR_STEP", f"[{'1' * 401}]", "must be rising epochs"),
        ("TRAIN.LR_STEP", "[true]", "True is a bool, int is needed"),
        ("TRAIN.MOMENTUM", "1.5", "TRAIN.MOMENTUM: 1.5 must be within [0, 1]"),
        ("TRAIN.LR_FACTOR", "1e300", "TRAIN.LR_FACTOR: 1e+300 must be within [0, 1000]"),
        ("TRAIN.BATCH_SIZE_PER_GPU", "1000000000", "1000000000 must be within [1, 65536]"),
        ("TRAIN.ACCUM_STEPS", "10000000000", "ACCUM_STEPS: 10000000000 must be within [1, 65536]"),
        ("TEST.BATCH_SIZE_PER_GPU", "-5", "TEST.BATCH_SIZE_PER_GPU: -5 must be within [1, 65536]"),
        ("MODEL.NUM_CLASSES", "1000000000000", "1000000000000 must be within [0, 1000000]"),
        ("MODEL.IMAGE_SIZE", "[1000000, 1000000]", "[224, 224], up to 4096"),
        ("MODEL.IMAGE_SIZE", "[224, 224, 224]", "must be two equal multiples of 32"),
        ("TEST.IMAGE_SIZE", "1000000", "TEST.IMAGE_SIZE: 1000000 must be within [0, 4096]"),
        ("TEST.RESIZE", "1000000", "TEST.RESIZE: 1000000 must be within [0, 8192]"),
        ("AUG.RANDAUGMENT", "[1000000000, 9]", "with 100 operations at most"),
        ("DATASET.BAD_IMAGES_MAX_SHARE", "2", "BAD_IMAGES_MAX_SHARE: 2.0 must be within [0, 1]"),
        ("SEED", "1" * 30, "must be within [0, 9223372036854775807]"),
        ("AUG.AUTO", "\x1b[31m", r"AUG.AUTO: '\x1b[31m' is not one of"),
        ("\x1b[31m", "1", r"unknown key '\x1b[31m'"),
        ("A" * 3000, "1", "unknown key 'AAAA"),
        ("MODEL.EXTRA." + "A." * 5000 + "A", "1", "no key has so many parts"),
    ],
)  # fmt: skip
def test_a_number_out_of_all_proportion_is_one_line_with_the_key(key, text, said):
    """Fault R6: what no machine has memory for, and what only Python takes for a number."""
    with pytest.raises(ValueError, match=".") as caught:
        load_config(None, [key, text])
    message = str(caught.value)
    assert said in message
    assert message.isprintable() and len(message) < 2500, "the longest lists all keys"
    if key.isupper() and len(key) < 40:
        assert key in message


def test_a_batch_of_large_pictures_is_measured_as_a_whole():
    """Fault R6: side and number are possible, both together are not."""
    words = ["MODEL.IMAGE_SIZE", "[4096, 4096]", "TRAIN.BATCH_SIZE_PER_GPU", "1024"]
    with pytest.raises(ValueError, match="1024 pictures of 4096 x 4096 do not .*: 256 at most"):
        load_config(None, words)
    assert load_config(None, [*words, "TRAIN.BATCH_SIZE_PER_GPU", "256"])


@pytest.mark.parametrize(
    ("number", "settings", "said"),
    [
        (1, "NUM_BLOCKS: [10000000]", "STAGE1.NUM_BLOCKS: 10000000 is above 256"),
        (2, "NUM_BLOCKS: [2, 10000000]", "STAGE2.NUM_BLOCKS: 10000000 is above 256"),
        (2, "NUM_CHANNELS: [1, 1000000000]", "NUM_CHANNELS: 1000000000 is above 4096"),
        (3, "NUM_MODULES: 10000000", "NUM_MODULES: 10000000 is above 64"),
        (1, "NUM_BLOCKS: [256], NUM_CHANNELS: [4096]", "make 7.7e.10 weights; 2e.09 at most"),
        (3, "NUM_BLOCKS: [9, 9, 9], NUM_MODULES: 64", "make 1735 blocks; 1000 at most"),
        (2, "BLOCK: [1]", r"STAGE2.BLOCK must be a name, not \[1\]"),
        (2, "NUM_BLOCKS: [1, 1, 1, 1, 1, 1]", "must be a list of numbers, one a branch"),
    ],
)
def test_a_network_that_nobody_can_build_is_refused_by_its_numbers(number, settings, said):
    """Faults R6, R7: ten million blocks were being built for as long as one waited."""
    words = ["MODEL.NAME", "cls_hrnet"]
    for stage in (1, 2, 3, 4):
        ones = [1] * stage
        for key, value in (("NUM_BLOCKS", ones), ("NUM_CHANNELS", ones), ("NUM_MODULES", 1)):
            words += [f"MODEL.EXTRA.STAGE{stage}.{key}", str(value)]
        words += [f"MODEL.EXTRA.STAGE{stage}.BLOCK", "BASIC"]
    assert network_spec(load_config(None, words))
    for key, value in read_yaml(f"{{{settings}}}").items():
        words += [f"MODEL.EXTRA.STAGE{number}.{key}", str(value)]
    with pytest.raises(ValueError, match=said):
        network_spec(load_config(None, words))


# ---- how keys and values are written ----


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["TRAIN.LR=0.1"], "override 'TRAIN.LR=0.1': key and value are two words: TRAIN.LR 0.1"),
        (["TRAIN.LR=0.1", "SEED=3"], "key and value are two words: TRAIN.LR 0.1"),
        (["SEED", "3", "train.lr=0.1"], "key and value are two words: train.lr 0.1"),
        (["TRAIN.LR="], "key and value are two words: TRAIN.LR VALUE"),
        (["train.lr", "0.1"], "unknown key train.lr; did you mean TRAIN.LR?"),
        (["Train.Lr", "0.1"], "unknown key Train.Lr; did you mean TRAIN.LR?"),
        (["TRAIN.LR:", "0.1"], "unknown key 'TRAIN.LR:'; did you mean TRAIN.LR?"),
    ],
)
def test_a_key_written_as_elsewhere_is_shown_as_it_is_written_here(words, said):
    """Fault R6."""
    with pytest.raises(ValueError, match=".") as caught:
        load_config(None, words)
    assert said in str(caught.value)


def test_a_value_may_hold_an_equals_sign():
    assert load_config(None, ["MODEL.PRETRAINED", "a=b.pth"]).MODEL.PRETRAINED == "a=b.pth"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TRAIN.LR: 0.1", "unknown key TRAIN.LR: write LR into the block TRAIN"),
        ("Train: {LR: 0.1}", "unknown key Train; did you mean TRAIN?"),
        ("AUG: {AUTO: no}", "AUG.AUTO: False is a bool, str is needed: put it in quotes"),
    ],
)
def test_a_yaml_written_otherwise_says_how_it_is_written(text, said, tmp_path):
    """Fault R6."""
    with pytest.raises(ValueError, match=".") as caught:
        load_config(written(tmp_path, text))
    assert said in str(caught.value)
