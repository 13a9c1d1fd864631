"""Defaults, yaml files and overrides, and what is wrong with them."""

import warnings
from pathlib import Path

import pytest
import yaml

from lib.config.keys import unused_settings, value_at
from lib.config.load import default_run_folder, load_config
from lib.models.build import network_spec
from lib.models.hrnet import ARCHS


def _stage(modules: int, block: str, blocks: list[int], channels: list[int]) -> str:
    branches = "NUM_RANCHES" if block == "BOTTLENECK" else "NUM_BRANCHES"
    return (
        f"{{NUM_MODULES: {modules}, {branches}: {len(blocks)}, BLOCK: {block}, "
        f"NUM_BLOCKS: {blocks}, NUM_CHANNELS: {channels}, FUSE_METHOD: SUM}}"
    )


# All that the official repository's HRNet-W18 file says.
OFFICIAL = f"""
GPUS: (0,1,2,3)
LOG_DIR: 'log/'
DATA_DIR: ''
OUTPUT_DIR: 'output/'
WORKERS: 4
PRINT_FREQ: 1000
MODEL:
  NAME: cls_hrnet
  PRETRAINED: ''
  IMAGE_SIZE:
  - 224
  - 224
  EXTRA:
    STAGE1: {_stage(1, "BOTTLENECK", [4], [64])}
    STAGE2: {_stage(1, "BASIC", [4, 4], [18, 36])}
    STAGE3: {_stage(4, "BASIC", [4, 4, 4], [18, 36, 72])}
    STAGE4: {_stage(3, "BASIC", [4, 4, 4, 4], [18, 36, 72, 144])}
CUDNN: {{BENCHMARK: true, DETERMINISTIC: false, ENABLED: true}}
DATASET:
  DATASET: 'imagenet'
  DATA_FORMAT: 'jpg'
  ROOT: 'data/imagenet/'
  TEST_SET: 'val'
  TRAIN_SET: 'train'
TEST: {{BATCH_SIZE_PER_GPU: 32, MODEL_FILE: ''}}
TRAIN:
  BATCH_SIZE_PER_GPU: 32
  BEGIN_EPOCH: 0
  END_EPOCH: 100
  RESUME: true
  LR_FACTOR: 0.1
  LR_STEP:
  - 30
  - 60
  - 90
  OPTIMIZER: sgd
  LR: 0.05
  WD: 0.0001
  MOMENTUM: 0.9
  NESTEROV: true
  SHUFFLE: true
DEBUG:
  DEBUG: false
"""
MEANINGLESS = {
    "GPUS", "LOG_DIR", "DATA_DIR", "CUDNN.ENABLED", "DATASET.DATA_FORMAT", "TRAIN.BEGIN_EPOCH",
    "TRAIN.SHUFFLE", "DEBUG",
}  # fmt: skip


def written(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    """Write an experiment file."""
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def official(tmp_path):
    """The official file, loaded; and the warnings that came with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = load_config(written(tmp_path, OFFICIAL))
    return config, [str(warning.message) for warning in caught]


def test_the_defaults_are_the_published_recipe():
    """Pitfall 4: continuing an old run is off by default."""
    config = load_config()
    assert (config.MODEL.NAME, config.MODEL.IMAGE_SIZE) == ("hrnet_w18", [224, 224])
    assert (config.TRAIN.LR, config.TRAIN.WD, config.TRAIN.LR_STEP) == (0.05, 1e-4, [30, 60, 90])
    assert config.TRAIN.RESUME is False


def test_an_official_yaml_loads_with_one_warning_that_lists_what_means_nothing(official):
    """Pitfall 6."""
    _, (message,) = official
    ignored = set(message.split(" are ignored: ")[1].split(", "))
    assert ignored == MEANINGLESS | {"TRAIN.RESUME (ask for it with --auto_resume)"}


def test_an_official_yaml_does_not_continue_an_old_run(official):
    """Pitfall 4: its RESUME true is not taken over."""
    config, _ = official
    assert config.TRAIN.RESUME is False


def test_a_resume_of_ones_own_is_taken_over(tmp_path):
    """Pitfall 4: asked for by name, in a yaml of ours or on the command line, it counts."""
    own = written(tmp_path, "TRAIN: {RESUME: true}")
    assert load_config(own).TRAIN.RESUME is True
    with pytest.warns(UserWarning):
        config = load_config(written(tmp_path, OFFICIAL), ["TRAIN.RESUME", "true"])
    assert config.TRAIN.RESUME is True


def test_an_official_yaml_is_the_network_of_the_table(official):
    config, _ = official
    assert network_spec(config) == ARCHS["hrnet_w18"]


def test_what_has_a_meaning_in_an_official_yaml_is_taken_over(official):
    config, _ = official
    assert (config.WORKERS, config.PRINT_FREQ, config.DATASET.ROOT) == (4, 1000, "data/imagenet/")
    assert (config.TRAIN.OPTIMIZER, config.TRAIN.END_EPOCH) == ("sgd", 100)


def test_an_ordinary_yaml_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_config(written(tmp_path, "TRAIN: {LR: 0.1}"), ["SEED", "3"])


def test_a_meaningless_key_on_the_command_line_is_warned_about_once():
    """Pitfall 6: nothing is dropped silently."""
    with pytest.warns(UserWarning, match="^command line: keys .* are ignored: GPUS$"):
        load_config(None, ["GPUS", "0"])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("TRAIN.LEARNING", "unknown key TRAIN.LEARNING; did you mean TRAIN."),
        ("TRAIN.MOMENTUMS", "unknown key TRAIN.MOMENTUMS; did you mean TRAIN.MOMENTUM?"),
        ("MODEL.NAMES", "unknown key MODEL.NAMES; did you mean MODEL.NAME?"),
        ("LR", "unknown key LR; did you mean TRAIN.LR?"),
        ("MODEL.LR_STEP", "unknown key MODEL.LR_STEP; did you mean TRAIN.LR_STEP?"),
        ("QQQQ", "unknown key QQQQ; known keys: OUTPUT_DIR, WORKERS, "),
    ],
)
def test_an_unknown_key_is_named_in_full_with_the_nearest_known_one(key, message, tmp_path):
    """Pitfall 5."""
    with pytest.raises(ValueError, match="^command line: ") as caught:
        load_config(None, [key, "1"])
    assert message in str(caught.value)
    tree: object = 1
    for part in reversed(key.split(".")):
        tree = {part: tree}
    path = written(tmp_path, yaml.safe_dump(tree))
    with pytest.raises(ValueError, match=f"^{path}: ") as caught:
        load_config(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("TRAIN.LR", "1", 1.0),
        ("TRAIN.LR", "1e-4", 1e-4),
        ("TRAIN.WD", "0", 0.0),
        ("AUG.CROP_SCALE", "[1, 1]", [1.0, 1.0]),
        ("TRAIN.LR_STEP", "[]", []),
        ("TRAIN.LR_STEP", "5", [5]),
        ("TRAIN.NESTEROV", "no", False),
        ("MODEL.FREEZE", "stem", ["stem"]),
        ("MODEL.FREEZE", "[stem, layer1]", ["stem", "layer1"]),
        ("MODEL.FREEZE", "[]", []),
        ("TRAIN.WARMUP_EPOCHS", "5", 5.0),
        ("MODEL.IMAGE_SIZE", "[64, 64]", [64, 64]),
        ("MODEL.PRETRAINED", "", ""),
        ("MODEL.PRETRAINED", "runs #2/a: b/[new]/123", "runs #2/a: b/[new]/123"),
        ("MODEL.PRETRAINED", "123", "123"),
        ("DATASET.DATASET", "2012", "2012"),
    ],
)
def test_a_value_gets_the_type_of_its_key(key, text, value):
    got = value_at(load_config(None, [key, text]), key)
    assert got == value
    assert type(got) is type(value)
    if isinstance(value, list):
        assert [type(item) for item in got] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("TRAIN.LR", "fast", "TRAIN.LR: 'fast' is a str, float is needed"),
        ("TRAIN.LR", "true", "TRAIN.LR: True is a bool, float is needed"),
        ("TRAIN.LR", ".nan", "TRAIN.LR: nan is not a finite number"),
        ("TRAIN.LR", "-1", r"TRAIN.LR: -1.0 must be within \[0, 1e\+38\]"),
        ("TRAIN.LR_FACTOR", "-0.1", r"TRAIN.LR_FACTOR: -0.1 must be within \[0, 1000\]"),
        ("TRAIN.END_EPOCH", "0", r"TRAIN.END_EPOCH: 0 must be within \[1, 1000000\]"),
        ("TRAIN.END_EPOCH", "1.5", "TRAIN.END_EPOCH: 1.5 is a float, int is needed"),
        ("TRAIN.NESTEROV", "1", "TRAIN.NESTEROV: 1 is a int, bool is needed"),
        ("TRAIN.OPTIMIZER", "lion", "'lion' is not one of sgd, adam, adamw, rmsprop"),
        ("TRAIN.PRECISION", "int8", "'int8' is not one of auto, fp32, hf32, fp16, bf16"),
        ("TRAIN.AMP_BACKEND", "amp", "'amp' is not one of torch, apex"),
        ("DATASET.BAD_IMAGES", "ignore", "'ignore' is not one of skip, fail"),
        ("DATASET.DECODER", "dali", "'dali' is not one of auto, fast, pillow"),
        ("TRAIN.LR_STEP", "[60, 30]", r"\[60, 30\] must be rising epochs"),
        ("TRAIN.LR_STEP", "[0]", r"\[0\] must be rising epochs"),
        ("TRAIN.LR_STEP", "[30, 30]", "must be rising epochs"),
        ("MODEL.FREEZE", "3", "MODEL.FREEZE: 3 is a int, list is needed"),
        ("MODEL.FREEZE", "[3]", "MODEL.FREEZE: 3 is a int, str is needed"),
        ("TRAIN.SCHEDULE", "linear", "'linear' is not one of step, cosine, poly"),
        ("TRAIN.LR_MIN", "-1", r"TRAIN.LR_MIN: -1.0 must be within \[0, 1e\+38\]"),
        ("TRAIN.LR_POWER", "-1", r"TRAIN.LR_POWER: -1.0 must be within \[0, 1000\]"),
        ("TRAIN.WARMUP_EPOCHS", "-1", r"TRAIN.WARMUP_EPOCHS: -1.0 must be within \[0, 1000000\]"),
        ("TRAIN.WARMUP_FACTOR", "1.5", r"TRAIN.WARMUP_FACTOR: 1.5 must be within \[0, 1\]"),
        ("TRAIN.HEAD_LR_FACTOR", "-1", r"TRAIN.HEAD_LR_FACTOR: -1.0 must be within \[0, 1e\+38\]"),
        ("TRAIN.LAYER_DECAY", "0", r"TRAIN.LAYER_DECAY: 0.0 must be within \(0, 1\]"),
        ("TRAIN.CLIP_GRAD_NORM", "-1", r"TRAIN.CLIP_GRAD_NORM: -1.0 must be within \[0, 1e\+38\]"),
        ("TRAIN.EMA_DECAY", "1", r"TRAIN.EMA_DECAY: 1.0 must be within \[0, 1\)"),
        ("TRAIN.EARLY_STOP", "-1", r"TRAIN.EARLY_STOP: -1 must be within \[0, 1000000\]"),
        ("MODEL.IMAGE_SIZE", "[224, 256]", r"\[224, 256\] must be two equal multiples of 32"),
        ("MODEL.IMAGE_SIZE", "[100, 100]", "must be two equal multiples of 32"),
        ("MODEL.IMAGE_SIZE", "224", r"\[224\] must be two equal multiples of 32"),
        ("MODEL.IMAGE_SIZE", "[a, b]", "'a' is a str, int is needed"),
        ("TEST.IMAGE_SIZE", "100", "100 must be a multiple of 32, or 0 for MODEL.IMAGE_SIZE"),
        ("TEST.RESIZE", "223", "223 is below the crop of 224 pixels"),
        ("TEST.RESIZE", "-1", r"-1 must be within \[0, 8192\]"),
        ("AUG.CROP_SCALE", "[0, 1]", r"must be \[low, high\] within \(0, 1\]"),
        ("AUG.CROP_SCALE", "[1]", r"must be \[low, high\] within"),
        ("AUG.CROP_RATIO", "[2, 1]", r"must be \[low, high\] above 0"),
        ("AUG.HFLIP", "1.5", r"must be within \[0, 1\]"),
        ("AUG.ERASE", "1.5", r"must be within \[0, 1\]"),
        ("AUG.MIX_PROB", "-1", r"must be within \[0, 1\]"),
        ("AUG.MIX_SWITCH_PROB", "2", r"must be within \[0, 1\]"),
        ("AUG.MIXUP", "-0.2", r"AUG.MIXUP: -0.2 must be within \[0, 1000\]"),
        ("AUG.MIXUP", "inf", "AUG.MIXUP: inf is not a finite number"),
        ("AUG.CROP_RATIO", "[0.5, .inf]", r"AUG.CROP_RATIO: \[0.5, inf\] is not a finite number"),
        ("MODEL.EXTRA.X", "{Y: -.inf}", "MODEL.EXTRA.X.Y: -inf is not a finite number"),
        ("AUG.CUTMIX", "-1", r"AUG.CUTMIX: -1.0 must be within \[0, 1000\]"),
        ("AUG.AUTO", "autoaugment", "is not one of no, randaugment, trivialaugment"),
        ("AUG.RANDAUGMENT", "[0, 9]", r"\[0, 9\] must be \[operations >= 1, strength in 0..30\]"),
        ("AUG.RANDAUGMENT", "[2, 31]", r"\[2, 31\] must be \[operations"),
        ("AUG.RANDAUGMENT", "2", r"\[2\] must be \[operations"),
        ("TRAIN.LOSS", "focal", "'focal' is not one of cross_entropy, bce"),
        ("TRAIN.LABEL_SMOOTHING", "1", r"TRAIN.LABEL_SMOOTHING: 1.0 must be within \[0, 1\)"),
        ("TRAIN.LABEL_SMOOTHING", "-0.1", r"TRAIN.LABEL_SMOOTHING: -0.1 must be within \[0, 1\)"),
        ("DISTILL.LOSS", "mse", "'mse' is not one of js, kl"),
        ("DISTILL.TEMPERATURE", "0", r"DISTILL.TEMPERATURE: 0.0 must be within \(0, 1000\]"),
        ("DISTILL.WEIGHT", "0", r"DISTILL.WEIGHT: 0.0 must be within \(0, 1\]"),
        ("DISTILL.WEIGHT", "1.5", r"DISTILL.WEIGHT: 1.5 must be within \(0, 1\]"),
        ("DISTILL.ARCH", "hrnet_w48", "hrnet_w48 without weights: name a file in DISTILL.TEACHER"),
        ("TRAIN", "5", "TRAIN holds keys of its own, not the value 5"),
        ("MODEL.EXTRA", "5", "MODEL.EXTRA holds keys of its own, not the value 5"),
        ("MODEL.EXTRA.STAGE1", "2020-01-01", "STAGE1 with value .*date.* is not a valid type"),
        ("TRAIN.LR.BASE", "5", "TRAIN.LR: {'BASE': 5} is a dict, float is needed"),
        ("TRAIN.LR", "[1", "'\\[1' is not a yaml value"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_with_the_key(key, text, message):
    """Pitfall 5: an unknown optimizer or precision names the allowed ones."""
    with pytest.raises(ValueError, match=message) as caught:
        load_config(None, [key, text])
    assert key.split(".")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "text", "without"),
    [
        ("LOSS", "bce", "cross_entropy"),
        ("LABEL_SMOOTHING", "0.1", "0"),
        ("CLASS_WEIGHTS", "balanced", "no"),
    ],
)
def test_what_concerns_labels_is_refused_where_only_a_teacher_is_asked(key, text, without):
    """Pitfall 6: a key that does nothing. It may stand in a yaml: the words say what to set."""
    settings = ["DISTILL.TEACHER", "t.pth", f"TRAIN.{key}", text]
    words = (
        f"TRAIN.{key}: {text} has no effect with .* set TRAIN.{key} {without}, or DISTILL.WEIGHT"
    )
    with pytest.raises(ValueError, match=words):
        load_config(None, settings)
    load_config(None, [*settings, f"TRAIN.{key}", without])
    load_config(None, [*settings, "DISTILL.WEIGHT", "0.9"])


def test_an_override_without_a_value_is_an_error():
    with pytest.raises(ValueError, match="pairs KEY VALUE; 'TRAIN.WD' has no partner"):
        load_config(None, ["TRAIN.LR", "0.1", "TRAIN.WD"])


def test_the_last_of_two_overrides_of_one_key_counts():
    assert load_config(None, ["TRAIN.LR", "0.1", "TRAIN.LR", "0.2"]).TRAIN.LR == 0.2


def test_overrides_of_a_key_and_of_its_parent_contradict_each_other():
    with pytest.raises(ValueError, match="override TRAIN.LR: TRAIN was given a value before"):
        load_config(None, ["TRAIN", "5", "TRAIN.LR", "0.1"])


@pytest.mark.parametrize("spell", ["!!python/object/apply:os.mkdir [{0}]", "__import__('os')"])
def test_text_of_a_yaml_is_never_run(spell, tmp_path):
    """Pitfall 5: no eval, and no yaml tags that build objects."""
    victim = tmp_path / "made"
    text = spell.format(victim)
    with pytest.raises(ValueError, match="TRAIN.LR|not readable yaml"):
        load_config(None, ["TRAIN.LR", text])
    with pytest.raises(ValueError, match="TRAIN.LR|not readable yaml"):
        load_config(written(tmp_path, f"TRAIN: {{LR: {text}}}"))
    assert not victim.exists()


def test_a_file_overrides_its_base_and_a_base_its_own(tmp_path):
    (tmp_path / "base").mkdir()
    written(tmp_path, "TRAIN: {LR: 1, WD: 1, MOMENTUM: 0.1, LR_STEP: []}", "base/far.yaml")
    written(tmp_path, "_BASE_: far.yaml\nTRAIN: {LR: 2, WD: 2}", "base/near.yaml")
    own = written(tmp_path, "_BASE_: base/near.yaml\nTRAIN: {LR: 3, LR_STEP: [7]}")
    train = load_config(own).TRAIN
    assert (train.LR, train.WD, train.MOMENTUM, train.LR_STEP) == (3, 2, 0.1, [7])


def test_a_base_is_found_from_any_working_directory(tmp_path, monkeypatch):
    """Pitfall 10: _BASE_ is relative to the file that says it."""
    written(tmp_path, "SEED: 4", "base.yaml")
    own = written(tmp_path, "_BASE_: base.yaml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_config(own).SEED == 4


def test_bases_in_a_circle_are_an_error(tmp_path):
    first = written(tmp_path, "_BASE_: b.yaml", "a.yaml")
    written(tmp_path, "_BASE_: a.yaml", "b.yaml")
    with pytest.raises(ValueError, match="a.yaml: _BASE_ leads back to this file"):
        load_config(first)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TRAIN: [", "is not readable yaml: "),
        ("- 1\n- 2", "a mapping of keys is needed, not a list"),
        ("_BASE_: [a.yaml, b.yaml]", "_BASE_ must be the path of one yaml file"),
        ("MODEL: {EXTRA: 3}", "MODEL.EXTRA holds keys of its own, not the value 3"),
        ("1: 2", "unknown key 1; known keys: "),
    ],
)
def test_a_broken_file_is_named_in_one_line(text, message, tmp_path):
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_or_base_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such experiment file: .*nowhere.yaml"):
        load_config(tmp_path / "nowhere.yaml")
    with pytest.raises(FileNotFoundError, match="no such experiment file: .*gone.yaml"):
        load_config(written(tmp_path, "_BASE_: gone.yaml"))


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert load_config(written(tmp_path, "# nothing\n")) == load_config()


def test_two_configurations_do_not_leak_into_each_other(tmp_path):
    """Pitfall 10."""
    path = written(tmp_path, "TRAIN: {LR_STEP: [1]}\nMODEL: {EXTRA: {STAGE1: {A: 1}}}")
    first = load_config(path, ["TRAIN.LR", "9"])
    second = load_config()
    assert second.TRAIN.LR == 0.05
    assert second.TRAIN.LR_STEP == [30, 60, 90]
    assert second.MODEL.EXTRA == {}
    second.TRAIN.LR_STEP.append(99)
    assert first.TRAIN.LR_STEP == [1]
    assert load_config().TRAIN.LR_STEP == [30, 60, 90]


def test_a_configuration_is_frozen():
    """Pitfall 10."""
    config = load_config()
    with pytest.raises(AttributeError):
        config.SEED = 1
    with pytest.raises(AttributeError):
        config.TRAIN.LR = 1.0


def test_what_a_configuration_is_dumped_as_loads_as_the_same(official, tmp_path):
    """Pitfall 15: a run's config.yaml is a recipe again, without another warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for config in (official[0], load_config(None, ["TRAIN.LR", "1e-4"])):
            assert load_config(written(tmp_path, config.dump())) == config


def test_the_run_folder_has_the_data_sets_and_the_files_name():
    config = load_config(None, ["OUTPUT_DIR", "out", "DATASET.DATASET", "digits"])
    assert default_run_folder(config, Path("some/where/w18.v2.yaml")) == Path("out/digits/w18.v2")
    assert default_run_folder(config, None) == Path("out/digits/hrnet_w18")


def test_a_batch_has_no_more_micro_batches_than_images():
    with pytest.raises(
        ValueError, match="TRAIN.ACCUM_STEPS: 5 micro-batches are more than the 4 images"
    ):
        load_config(None, ["TRAIN.BATCH_SIZE_PER_GPU", "4", "TRAIN.ACCUM_STEPS", "5"])


def test_a_rate_does_not_fall_to_more_than_it_begins_with():
    overrides = ["TRAIN.LR", "0.1", "TRAIN.LR_MIN", "0.2"]
    assert load_config(None, overrides).TRAIN.LR_MIN == 0.2, "of no use to the step schedule"
    with pytest.raises(ValueError, match=r"TRAIN.LR_MIN: 0.2 is above TRAIN.LR 0.1"):
        load_config(None, [*overrides, "TRAIN.SCHEDULE", "cosine"])


def test_synchronised_norms_are_not_computed_twice():
    with pytest.raises(ValueError, match="TRAIN.SYNC_BN: true does not go with"):
        load_config(None, ["TRAIN.SYNC_BN", "true", "TRAIN.CHECKPOINT_ACTIVATIONS", "true"])


def test_synchronised_norms_are_not_padded():
    with pytest.raises(ValueError, match="does not go with TRAIN.WIDTH_MULTIPLE 8"):
        load_config(None, ["TRAIN.SYNC_BN", "true", "TRAIN.WIDTH_MULTIPLE", "8"])


def test_widths_are_rounded_up_to_few_multiples():
    with pytest.raises(ValueError, match=r"WIDTH_MULTIPLE: 12 is not one of 1, 8, 16, 32"):
        load_config(None, ["TRAIN.WIDTH_MULTIPLE", "12"])


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_cuda_graphs_do_not_add_up_gradients(mode: str):
    """They overwrite the first part's: pytorch/pytorch issue 169545."""
    in_parts = ["TRAIN.ACCUM_STEPS", "2", "TRAIN.COMPILE"]
    with pytest.raises(ValueError, match=f"TRAIN.COMPILE: {mode} records CUDA graphs"):
        load_config(None, [*in_parts, mode])
    assert load_config(None, [*in_parts, "default"]).TRAIN.ACCUM_STEPS == 2


@pytest.mark.parametrize(
    ("idle", "needed", "said"),
    [
        ("DISTILL.WEIGHT 0.5 DISTILL.LOSS kl", "DISTILL.TEACHER t.pth", "DISTILL.LOSS kl, DISTILL"),
        ("DISTILL.TEMPERATURE 2", "DISTILL.TEACHER t.pth", "2.0: no effect unless DISTILL.TEACHER"),
        ("AUG.MIX_PROB 0.5", "AUG.CUTMIX 1", "0.5: no effect unless AUG.MIXUP or AUG.CUTMIX"),
        ("AUG.MIX_SWITCH_PROB 0.2", "AUG.CUTMIX 1 AUG.MIXUP 1", "AUG.MIXUP and AUG.CUTMIX"),
        ("AUG.RANDAUGMENT [1,9]", "AUG.AUTO randaugment", "unless AUG.AUTO is randaugment"),
        ("TRAIN.LR_POWER 2", "TRAIN.SCHEDULE poly", "unless TRAIN.SCHEDULE is poly"),
        ("TRAIN.LR_MIN 0.01", "TRAIN.SCHEDULE cosine", "unless TRAIN.SCHEDULE is cosine or poly"),
        ("TRAIN.WARMUP_FACTOR 0.1", "TRAIN.WARMUP_EPOCHS 3", "unless TRAIN.WARMUP_EPOCHS is"),
        ("DATASET.SPLIT_SEED 3", "DATASET.VAL_SHARE 0.1", "unless DATASET.VAL_SHARE is above 0"),
    ],
)
def test_a_setting_that_nothing_reads_is_remarked(idle, needed, said):
    (remark,) = unused_settings(load_config(None, idle.split()))
    assert said in remark
    assert unused_settings(load_config(None, [*idle.split(), *needed.split()])) == []


def test_steps_of_the_rate_are_remarked_with_another_schedule_but_not_as_by_default():
    cosine = ["TRAIN.SCHEDULE", "cosine"]
    assert unused_settings(load_config(None, cosine)) == []
    (remark,) = unused_settings(load_config(None, [*cosine, "TRAIN.LR_STEP", "[3]"]))
    assert remark == "TRAIN.LR_STEP [3]: no effect unless TRAIN.SCHEDULE is step"


def test_no_recipe_sets_what_nothing_reads():
    paths = (Path(__file__).resolve().parents[2] / "experiments").rglob("*.yaml")
    assert {path.name: said for path in paths if (said := unused_settings(load_config(path)))} == {}
