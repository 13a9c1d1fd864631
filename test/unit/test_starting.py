"""What a training run starts from, and where it continues."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_checkpoint import training_state

from lib.config.load import load_config
from lib.models.weights.load import WeightFile
from lib.runtime import run_folder
from lib.runtime.environment import RankInfo
from lib.training.checkpoint import Position
from lib.training.start import (
    StartingPoint,
    TrainRequest,
    check_same_data,
    check_same_start,
    check_work_left,
    class_count,
    decoder_remark,
    find_start,
    look_alike_remarks,
    starting_position,
    teacher_remark,
)


def resumed(**position: int) -> StartingPoint:
    state = {
        "position": {"epoch": 4, "step": 0, "num_steps": 10, "images_per_step": 64, **position}
    }
    return StartingPoint("resumed", WeightFile(Path("c.pth.tar"), {}, None), state)  # type: ignore[arg-type]


class OneRank:
    """Stands in for the processes of a run on one card."""

    def __init__(self, **ranks: object):
        self.ranks = RankInfo(**ranks)  # type: ignore[arg-type]

    def gather(self, item: object) -> list[object]:
        return [item]


class TwoRanks:
    """Stands in for the processes of a run of which the other rank found `other`."""

    ranks = RankInfo(rank=0, world_size=2)

    def __init__(self, other: object):
        self._other = other

    def gather(self, item: object) -> list[object]:
        return [item, self._other]


def test_a_new_run_starts_at_the_beginning() -> None:
    position, remark = starting_position(StartingPoint(), num_steps=7, images_per_step=32)
    assert position == Position(0, 0, 7, 32) and remark is None


def test_the_same_batch_size_continues_at_the_same_step() -> None:
    position, remark = starting_position(resumed(step=6), num_steps=10, images_per_step=64)
    assert position == Position(4, 6, 10, 64) and remark is None


@pytest.mark.parametrize(("images_per_step", "num_steps", "step"), [(32, 20, 12), (128, 5, 3)])
def test_another_batch_size_continues_after_as_many_images_and_says_so(
    images_per_step: int, num_steps: int, step: int
) -> None:
    position, remark = starting_position(
        resumed(step=6), num_steps=num_steps, images_per_step=images_per_step
    )
    assert (position.epoch, position.step) == (4, step)
    assert remark is not None and "64 images" in remark


def test_a_whole_epoch_is_whole_with_any_batch_size() -> None:
    position, _ = starting_position(resumed(step=10), num_steps=3, images_per_step=200)
    assert position.step == 3


def test_a_resume_without_work_left_is_refused_but_a_whole_run_may_say_its_results_again() -> None:
    start, position = resumed(), Position(4, 0, 10, 64)
    check_work_left(start, position, end_epoch=5, measures=True)
    check_work_left(start, position, end_epoch=4, measures=False)
    for end_epoch, measures in ((4, True), (3, False)):
        with pytest.raises(ValueError, match="raise --train_epochs"):
            check_work_left(start, position, end_epoch=end_epoch, measures=measures)


def test_a_resume_with_another_decoder_says_so() -> None:
    start = resumed()
    assert start.state is not None
    assert decoder_remark(StartingPoint(), "fast") is None
    assert decoder_remark(start, "pillow") is None, "the first releases had no other"
    assert "with pillow, this one does with fast" in str(decoder_remark(start, "fast"))
    start.state["decoder"] = "fast"
    assert decoder_remark(start, "fast") is None
    assert "with fast, this one does with pillow" in str(decoder_remark(start, "pillow"))


def test_ranks_that_found_different_checkpoints_are_refused() -> None:
    start = resumed(step=6)
    assert start.state is not None
    same = (True, start.state["position"])
    check_same_start(start, TwoRanks(same))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every machine must see the same run folder"):
        check_same_start(start, TwoRanks((False, None)))  # type: ignore[arg-type]


def test_the_class_count_is_the_datas_and_another_setting_is_refused() -> None:
    assert class_count(load_config(), ("a", "b")) == 2
    assert class_count(load_config(None, ["MODEL.NUM_CLASSES", "2"]), ("a", "b")) == 2
    with pytest.raises(ValueError, match="MODEL.NUM_CLASSES 3.*2 class folders"):
        class_count(load_config(None, ["MODEL.NUM_CLASSES", "3"]), ("a", "b"))


def test_the_run_folders_checkpoint_is_taken_only_when_asked_for_and_before_pretrained_weights(
    tmp_path: Path,
) -> None:
    """Pitfall 4, and the order: an attempt before, --resume, auto-resume, pretrained, scratch."""
    weights = {"conv1.weight": torch.zeros(1)}
    torch.save(weights, tmp_path / "w.pth")
    state = training_state(weights)
    torch.save(state, tmp_path / "checkpoint.pth.tar")
    torch.save(state, tmp_path / "other.pth.tar")
    config = load_config(None, ["MODEL.PRETRAINED", str(tmp_path / "w.pth")])

    def found(ranks: OneRank = OneRank(), **asked: object) -> str:  # noqa: B008
        request = TrainRequest(tmp_path, tmp_path, "x", **asked)  # type: ignore[arg-type]
        path = find_start(config, request, ranks).path  # type: ignore[arg-type]
        assert path is not None
        return path.name

    assert found() == "w.pth"
    assert found(auto_resume=True) == "checkpoint.pth.tar"
    assert found(resume=tmp_path / "other.pth.tar", auto_resume=True) == "other.pth.tar"
    restarted = OneRank(restart_count=1, launch_id="mine")
    assert found(restarted) == "w.pth", "the checkpoint is of another launch"
    run_folder.sign(tmp_path, "mine")
    assert found(restarted) == "checkpoint.pth.tar"
    assert found(restarted, resume=tmp_path / "other.pth.tar") == "checkpoint.pth.tar"
    request = TrainRequest(tmp_path, tmp_path, "x")
    nothing = find_start(load_config(), request, OneRank())  # type: ignore[arg-type]
    assert nothing.path is None and not nothing.is_resume


def test_weights_that_are_nan_are_no_start() -> None:
    """Fault C4: said at loading, and not as a learning rate that is too high."""
    weights = {"conv1.weight": torch.tensor([float("nan")])}
    start = StartingPoint("pretrained weights", WeightFile(Path("c.pth"), weights, None))
    with pytest.raises(ValueError, match=r"c.pth is no use to start from: 1 hold NaN .*conv1"):
        start.load_into(torch.nn.Identity(), load_config(), ())


def test_a_resume_under_another_teacher_is_remarked() -> None:
    """Checkpoints of earlier releases know of none."""

    def start(**state: str) -> StartingPoint:
        return StartingPoint("resumed", WeightFile(Path("c.pth.tar"), {}, None), state)  # type: ignore[arg-type]

    assert teacher_remark(StartingPoint(), "ab") is None
    assert teacher_remark(start(), "") is None
    assert teacher_remark(start(teacher="ab"), "ab") is None
    for saved, now, said in (("ab", "cd", "ab... then, SHA-256 cd..."), ("ab", "", "none now")):
        assert said in str(teacher_remark(start(teacher=saved), now))
    assert "none then, SHA-256 ab... now" in str(teacher_remark(start(), "ab"))


def test_class_names_that_only_look_alike_are_remarked_on() -> None:
    """Fault M2: a second class of the data, and one that the weights have in another form."""
    composed, apart = "caf\u00e9", "cafe\u0301"
    weights = WeightFile(Path("c.pth"), {}, ("bar", apart))
    start = StartingPoint("pretrained weights", weights)
    two, others = look_alike_remarks(start, ("bar", "bar ", composed))
    assert two == "two classes look alike: 'bar' and 'bar ' differ only in blanks"
    assert others.startswith("the weights' classes are not the data's: 'caf")
    assert "differ only in Unicode normalisation" in others
    assert look_alike_remarks(start, ("bar", apart)) == ("", "")
    state = {"class_names": ("bar", apart), "num_images": 3, "position": {"step": 0}}
    again = StartingPoint("resumed", weights, state)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'bar', 'caf.*resume needs the same .*Unicode"):
        check_same_data(again, ("bar", composed), num_images=3, names_sum="")
