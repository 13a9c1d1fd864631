"""lib/data/bad_images.py: every bad file is listed once, and too many of them end the run."""

from pathlib import Path

import pytest

from lib.data.bad_images import BadImage, BadImageLedger, in_one_line, lost_classes_remark
from lib.data.image_list import ImageList


def test_the_ledger_has_every_bad_file_once_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "run" / "bad_images.tsv"
    first, second, third = (BadImage(f"/d/{name}.jpg", f"no {name}") for name in "abc")

    def ledger() -> BadImageLedger:
        return BadImageLedger(path, policy="skip", max_share=0.5, num_images=10)

    begun = ledger()
    begun.record([])
    assert not path.exists()
    begun.record([first, second, first])
    begun.record([second])
    assert begun.num_bad == 2 and begun.bad_images == (first, second)
    with path.open("a") as cut_by_a_kill:
        cut_by_a_kill.write("/d/ha")
    resumed = ledger()
    resumed.merge([[second], [third], []])
    assert resumed.num_bad == 2
    assert path.read_text() == "/d/a.jpg\tno a\n/d/b.jpg\tno b\n/d/ha\n/d/c.jpg\tno c\n"


def test_names_with_tabs_and_foreign_bytes_keep_to_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad_images.tsv"
    for _ in range(2):
        ledger = BadImageLedger(path, policy="skip", max_share=1.0, num_images=1)
        ledger.record([BadImage("a\tb\nc\udcff\u2028.jpg", "torn\nup")])
    assert path.read_bytes() == b"a\\tb\\nc\xff\xe2\x80\xa8.jpg\ttorn\\nup\n"


def test_only_the_ledger_with_a_path_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall 17."""
    monkeypatch.chdir(tmp_path)
    ledger = BadImageLedger(None, policy="skip", max_share=1.0, num_images=2)
    ledger.record([BadImage("a", "b")])
    assert ledger.num_bad == 1 and list(tmp_path.iterdir()) == []


def test_the_policy_fail_names_the_first_bad_file_also_when_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "bad_images.tsv"
    for _ in range(2):
        ledger = BadImageLedger(path, policy="fail", max_share=1.0, num_images=9)
        with pytest.raises(ValueError, match=r"'/d/a.jpg' can't be read \(cut\).*DATASET.BAD_IMA"):
            ledger.record([BadImage("/d/a.jpg", "cut")])
    assert path.read_text() == "/d/a.jpg\tcut\n"


def test_more_bad_files_than_the_allowed_share_end_the_run(tmp_path: Path) -> None:
    path = tmp_path / "bad_images.tsv"
    ledger = BadImageLedger(path, policy="skip", max_share=0.02, num_images=100)
    ledger.record([BadImage("a", "x"), BadImage("b", "x")])
    ledger.record([BadImage("a", "x")])
    with pytest.raises(ValueError) as caught:
        ledger.record([BadImage("c", "x")])
    message = str(caught.value)
    assert "3 of 100 pictures" in message and "share of 0.03 where 0.02 is allowed" in message
    assert str(path) in message and "DATASET.BAD_IMAGES_MAX_SHARE" in message
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("policy", "max_share", "pattern"),
    [("ignore", 0.1, "'ignore': use one of skip, fail"), ("skip", 1.5, "1.5: use a share in 0..1")],
)
def test_ledger_settings_outside_their_range_are_refused(
    policy: str, max_share: float, pattern: str
) -> None:
    with pytest.raises(ValueError, match=pattern):
        BadImageLedger(None, policy=policy, max_share=max_share, num_images=1)


def test_a_class_left_without_a_readable_picture_is_named() -> None:
    """Fault M2: one of which some can be read is not, nor one that had none."""
    paths = ("a/0", "a/1\n", "b/0", "b/1", "c/0")
    images = ImageList(paths, (0, 0, 1, 1, 2), ("a ", "b", "c", "none"))
    bad = [BadImage(in_one_line(path), "cut") for path in ("a/0", "a/1\n", "b/0")]
    assert lost_classes_remark(images, bad) == (
        "[Warning] 1 class has no picture that can be read: 'a '"
    )
    bad.append(BadImage("c/0", "cut"))
    assert lost_classes_remark(images, bad).endswith(
        "2 classes have no picture that can be read: 'a ', 'c'"
    )
    assert lost_classes_remark(images, []) == lost_classes_remark(images, bad[:1]) == ""
