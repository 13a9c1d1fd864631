"""lib/packing and tools/pack_dataset.py: what shards hold, restarts, bad pictures, verification."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import multiprocessing
import os
import signal
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import RunScript
from PIL import Image
from timm.data.readers.reader_image_tar import ReaderImageTar

from lib.config.recipe import Recipe
from lib.data.build import read_val
from lib.data.loading import LoaderOptions, eval_loader, train_loader
from lib.data.packed.options import PackOptions
from lib.data.packed.packing import pack
from lib.data.packed.pictures import Picture
from lib.data.packed.record import Record
from lib.data.packed.verify import damaged_files
from lib.data.rgb import open_rgb
from lib.data.transforms import resize_short_side
from lib.runtime import run_folder

TOOL = "tools/pack_dataset.py"
SMALL = PackOptions(shard_mb=0.02, num_workers=1)  # two or three pictures a shard


def write_picture(path: Path, *, size: tuple[int, int] = (48, 40), seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes, 9 pictures to train on and 3 to validate, of two kinds of file."""
    root = tmp_path / "data"
    for seed in range(9):
        ending = "JPEG" if seed % 2 else "png"
        write_picture(root / "train" / f"c{seed // 5}" / f"a.{seed} ä.{ending}", seed=seed)
    for seed in range(3):
        write_picture(root / "val" / f"c{seed % 2}" / f"{seed}.png", seed=20 + seed)
    return root


def sums(root: Path) -> dict[str, str]:
    """The sums of all files that a packed data set is made of."""
    paths = [root / "index.json", *root.glob("*/pictures.npz"), *root.glob("*/*.tar")]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def samples(root: Path, part: str) -> list[tuple[str, bytes, int]]:
    """(key and ending, content, class) of each sample, as a reader of WebDataset's form has it."""
    found = []
    for shard in sorted((root / part).glob("*.tar")):
        with tarfile.open(shard) as archive:
            members = [(m.name, archive.extractfile(m).read()) for m in archive]
        for (name, content), (label, number) in zip(members[::2], members[1::2], strict=True):
            assert name.partition(".")[0] + ".cls" == label
            found.append((name, content, int(number)))
    return found


def test_the_files_are_in_the_shards_byte_for_byte_in_the_order_of_the_list(
    data: Path, tmp_path: Path
) -> None:
    pack(data, tmp_path / "out", SMALL)
    packed = samples(tmp_path / "out", "train")
    sources = sorted((data / "train").rglob("*.*"))
    assert [content for _, content, _ in packed] == [path.read_bytes() for path in sources]
    assert [target for _, _, target in packed] == [0] * 5 + [1] * 4
    assert [name for name, _, _ in packed[:2]] == ["00000000_a_0__.png", "00000001_a_1__.jpg"]
    assert len({name for name, _, _ in packed}) == 9


def test_no_shard_is_larger_than_asked_unless_one_picture_is(data: Path, tmp_path: Path) -> None:
    write_picture(data / "train" / "c0" / "b.png", size=(120, 120))
    pack(data, tmp_path / "out", SMALL)
    shards = sorted((tmp_path / "out" / "train").glob("*.tar"))
    counts = []
    for shard in shards:
        with tarfile.open(shard) as archive:
            counts.append(len(archive.getnames()) // 2)
    assert sum(counts) == 10 and len(shards) > 3
    for shard, count in zip(shards, counts, strict=True):
        assert shard.stat().st_size <= 20_000 or count == 1


def test_timm_reads_the_shards(data: Path, tmp_path: Path) -> None:
    pack(data, tmp_path / "out", PackOptions(num_workers=1))
    reader = ReaderImageTar(str(tmp_path / "out" / "train" / "000000.tar"))
    found = {reader[index][0].read() for index in range(len(reader.samples))}
    assert found == {path.read_bytes() for path in (data / "train").rglob("*.*")}


def test_webdataset_reads_the_shards(data: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    pack(data, tmp_path / "out", SMALL)
    shards = [str(path) for path in sorted((tmp_path / "out" / "train").glob("*.tar"))]
    read = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert [sample["cls"] for sample in read] == [0] * 5 + [1] * 4


def test_the_same_input_and_options_give_the_same_bytes_with_any_number_of_workers(
    data: Path, tmp_path: Path
) -> None:
    for number in (1, 3):
        options = PackOptions(resize=32, shard_mb=0.02, num_workers=number)
        pack(data, tmp_path / str(number), options)
    assert sums(tmp_path / "1") == sums(tmp_path / "3")


def test_larger_pictures_are_shrunk_and_others_are_left_as_they_are(
    data: Path, tmp_path: Path
) -> None:
    write_picture(data / "train" / "c0" / "z.png", size=(31, 200))
    pack(data, tmp_path / "out", PackOptions(resize=32, quality=95, num_workers=1))
    sources = sorted((data / "train").rglob("*.*"))
    for source, (name, content, _) in zip(sources, samples(tmp_path / "out", "train"), strict=True):
        if source.name == "z.png":
            assert content == source.read_bytes() and name.endswith(".png")
            continue
        expected = io.BytesIO()
        resize_short_side(open_rgb(source), 32).save(expected, "JPEG", quality=95)
        assert content == expected.getvalue() and name.endswith(".jpg")
        assert Image.open(io.BytesIO(content)).size == (38, 32)


def pack_and_die(data: Path, out: Path, num_shards: int) -> None:
    """Pack in this process, and end it as a power cut would just before a shard gets its name."""
    add = Record.add

    def add_and_die(self, part, number, record):
        add(self, part, number, record)
        if number == num_shards:
            os.kill(os.getpid(), signal.SIGKILL)

    Record.add = add_and_die
    pack(data, out, SMALL)


@pytest.mark.parametrize("num_shards", [0, 2])
def test_a_killed_packing_goes_on_behind_its_finished_shards(
    data: Path, tmp_path: Path, num_shards: int, run_script
) -> None:
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(
        target=pack_and_die, args=(data, out, num_shards)
    )
    process.start()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    refused = run_script("tools/train.py", out)
    assert refused.returncode == 2 and "not come to its end" in refused.stderr
    before = {path.name: path.stat().st_mtime_ns for path in (out / "train").glob("0*.tar")}
    report = pack(data, out, SMALL)
    assert report.num_kept == {"train": num_shards, "val": 0}
    assert len(before) == num_shards
    for name, time_ns in before.items():
        assert (out / "train" / name).stat().st_mtime_ns == time_ns
    pack(data, tmp_path / "whole", SMALL)
    assert sums(out) == sums(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_packing_leaves_whole_shards_only_and_goes_on(
    data: Path, tmp_path: Path, run_script, monkeypatch, number: signal.Signals, code: int
) -> None:
    add = Record.add

    def add_and_stop(self, part, place, record):
        add(self, part, place, record)
        os.kill(os.getpid(), number)

    words = (TOOL, data, tmp_path / "out", "--shard_size", 0.02, "--workers", 1)
    with monkeypatch.context() as patch:
        patch.setattr("lib.data.packed.packing._PICTURES_A_JOB", 1)
        patch.setattr("lib.data.packed.packing.Record.add", add_and_stop)
        done = run_script(*words)
    assert done.returncode == code and done.stderr.startswith("stopped by ")
    files = sorted(path.name for path in (tmp_path / "out" / "train").iterdir())
    assert files == ["000000.tar"]
    done = run_script(*words)
    assert done.returncode == 0 and "; 1 shards were there already" in done.stdout
    pack(data, tmp_path / "whole", SMALL)
    assert sums(tmp_path / "out") == sums(tmp_path / "whole")


def test_a_second_run_writes_no_shard_anew(data: Path, tmp_path: Path) -> None:
    first = pack(data, tmp_path / "out", SMALL)
    before = sums(tmp_path / "out")
    again = pack(data, tmp_path / "out", SMALL)
    assert again.num_kept == {name: len(p.shards) for name, p in first.index.parts.items()}
    assert sums(tmp_path / "out") == before


@pytest.mark.parametrize("change", ["content", "one more at the end", "one less", "class", "shard"])
def test_shards_of_other_pictures_are_made_again(data: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    pack(data, out, SMALL)
    last = data / "train" / "c1" / "a.8 ä.png"
    if change == "content":
        write_picture(data / "train" / "c0" / "a.2 ä.png", seed=99)
    elif change == "one more at the end":
        write_picture(last.with_name("z.png"), seed=50)
    elif change == "one less":
        last.unlink()
    elif change == "class":
        (data / "train" / "c0" / "a.4 ä.png").rename(data / "train" / "c1" / "a.4 ä.png")
    else:
        (out / "train" / "000001.tar").write_bytes(b"half")
    pack(data, out, SMALL)
    pack(data, tmp_path / "new", SMALL)
    assert sums(out) == sums(tmp_path / "new")


def test_bad_pictures_are_named_and_left_out(data: Path, tmp_path: Path, run_script) -> None:
    """Pitfall 31. Fault S13: what is no picture is told of too."""
    (data / "train" / "c0" / "notes.md").touch()
    bad = data / "train" / "c0" / "a.2 ä.png"
    bad.write_bytes(bad.read_bytes()[:600])
    out = tmp_path / "out"
    for _ in range(2):  # the finished shards' bad pictures are told again
        done = run_script(TOOL, data, out, "--resize", 32, "--workers", 1)
        assert done.returncode == 1 and "1 pictures can't be read" in done.stderr
        assert "train: 8 pictures in 1 shard," in done.stdout
        assert "1 file without a picture's ending ('train/c0/notes.md')" in done.stdout
        [line] = (out / "bad_images.tsv").read_text().splitlines()
        assert line.startswith(f"{bad}\tOSError")
    assert len(samples(out, "train")) == 8
    write_picture(bad)
    assert run_script(TOOL, data, out, "--resize", 32, "--workers", 1).returncode == 0
    assert not (out / "bad_images.tsv").exists() and len(samples(out, "train")) == 9


def test_nothing_is_decoded_where_nothing_is_resized(data: Path, tmp_path: Path) -> None:
    (data / "val" / "c0" / "0.png").write_bytes(b"no picture")
    (data / "val" / "c0" / "2.png").unlink()
    (data / "val" / "c0" / "2.png").symlink_to(tmp_path / "nowhere")
    report = pack(data, tmp_path / "out", SMALL)
    assert [content for _, content, _ in samples(tmp_path / "out", "val")][0] == b"no picture"
    [(path, reason)] = report.failed.items()
    assert path.endswith("2.png") and "FileNotFoundError" in reason


def test_pictures_none_of_which_can_be_read_are_an_error(data: Path, tmp_path: Path) -> None:
    for path in (data / "val").rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="none of the 3 pictures of val can be read"):
        pack(data, tmp_path / "out", PackOptions(resize=32, num_workers=1))


def test_a_flat_val_alone_is_packed_with_its_numbers(tmp_path: Path) -> None:
    for number in range(3):
        write_picture(tmp_path / "data" / "val" / f"{number}.png", seed=number)
    labels = "".join(f"{number}.png {10 - number}\n" for number in range(3))
    (tmp_path / "data" / "val_label.txt").write_text(labels)
    report = pack(tmp_path / "data", tmp_path / "out", SMALL)
    assert [target for _, _, target in samples(tmp_path / "out", "val")] == [10, 9, 8]
    assert list(report.index.parts) == ["val"] and report.index.parts["val"].class_names is None


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("DATA",), "DATA and OUT are needed"),
        (("DATA", "OUT", "--quality", "80"), "--quality has a meaning with --resize only"),
        (("DATA", "OUT", "--resize", "0"), "--resize is 0: use 1 or more"),
        (("DATA", "OUT", "--resize", "9", "--quality", "96"), "--quality is 96: use 1 to 95"),
        (("DATA", "OUT", "--shard_size", "0"), "--shard_size is 0.0: use more than 0"),
        (("DATA", "OUT", "--workers", "-1"), "--workers is -1: use 0 or more"),
        (("DATA", "DATA"), "is, or lies in, a folder to pack"),
        (("DATA", "DATA/train/out"), "is, or lies in, a folder to pack"),
        (("DATA", "DATA/train/c0/a.0 ä.png"), "is, or lies in, a folder to pack"),
        (("DATA", "DATA/file"), "is not a folder"),
        (("nowhere", "OUT"), "nowhere has none of the folders train, val"),
        (("--verify", "OUT"), "OUT/index.json can't be read: No such file"),
        (("DATA", "--verify", "OUT"), "--verify takes one packed data set"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    data: Path, tmp_path: Path, run_script, arguments: tuple[str, ...], pattern: str
) -> None:
    (data / "file").write_text("")
    named = {"DATA": str(data), "OUT": str(tmp_path / "OUT")}
    paths = [str(data) + a[4:] if a.startswith("DATA/") else named.get(a, a) for a in arguments]
    done = run_script(TOOL, *paths)
    assert done.returncode == 2 and pattern in done.stderr
    assert done.stderr.startswith("[Error] ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "OUT").exists()


def test_a_target_with_something_else_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(data, out, SMALL)
    before = sums(out)
    with pytest.raises(ValueError, match=r"other options \(resize None for 32, quality None for"):
        pack(data, out, PackOptions(resize=32, shard_mb=0.02))
    with pytest.raises(ValueError, match="is packed already: give the class folders"):
        pack(out, tmp_path / "again", SMALL)
    assert sums(out) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds other files \(letter.txt, \.\.\.\)"):
        pack(data, tmp_path / "full", SMALL)


@pytest.mark.parametrize("record", ["train/000000.json", "options.json"])
def test_a_damaged_record_is_no_reason_to_trust_the_shards(
    data: Path, tmp_path: Path, record: str
) -> None:
    out = tmp_path / "out"
    pack(data, out, SMALL)
    (out / ".packing" / record).write_text("{")
    if record == "options.json":
        with pytest.raises(ValueError, match="other options"):
            pack(data, out, SMALL)
    else:
        assert pack(data, out, SMALL).num_kept["train"] == 0


def test_a_part_that_is_gone_is_gone_from_the_packed_data_set_too(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pack(data, out, SMALL)
    (data / "val").rename(data / "later")
    assert list(pack(data, out, SMALL).index.parts) == ["train"]
    assert not (out / "val").exists()


def test_classes_that_do_not_fit_each_other_are_told_before_any_shard_is_written(
    data: Path, tmp_path: Path
) -> None:
    """Pitfall 22."""
    (data / "val" / "c1").rename(data / "val" / "c2")
    with pytest.raises(ValueError, match="the class folders differ"):
        pack(data, tmp_path / "out", SMALL)
    (data / "val").rename(data / "old")
    write_picture(data / "val" / "a.png")
    (data / "val_label.txt").write_text("a.png 2\n")
    with pytest.raises(ValueError, match=r"pictures of class 2, which is outside 0\.\.1"):
        pack(data, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["a bit", "a cut", "gone", "the list"])
def test_verification_names_the_damaged_file_and_packing_mends_it(
    data: Path, tmp_path: Path, run_script, damage: str
) -> None:
    out = tmp_path / "out"
    pack(data, out, SMALL)
    before = sums(out)
    done = run_script(TOOL, "--verify", out)
    assert done.returncode == 0 and f"all {len(before) - 1} files" in done.stdout
    bad = out / "train" / ("pictures.npz" if damage == "the list" else "000001.tar")
    content = bytearray(bad.read_bytes())
    content[700] ^= 1
    bad.unlink()
    if damage != "gone":
        bad.write_bytes(content[:-1] if damage == "a cut" else content)
    done = run_script(TOOL, "--verify", out)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"1 of {len(before) - 1} files are damaged (train/{bad.name}: " in done.stderr
    bad.unlink(missing_ok=True)
    pack(data, out, SMALL)
    assert sums(out) == before and damaged_files(out)[0] == {}


def test_two_packings_into_one_folder_are_refused(data: Path, tmp_path: Path) -> None:
    """Pitfall 17."""
    with run_folder.lock(tmp_path / "out"), pytest.raises(ValueError, match="is writing"):
        pack(data, tmp_path / "out", SMALL)


def test_the_index_says_how_the_pictures_were_made(data: Path, tmp_path: Path) -> None:
    pack(data, tmp_path / "out", PackOptions(resize=32, quality=80, num_workers=1))
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert (index["kind"], index["format"]) == ("packed pictures", 1)
    assert index["recipe"]["resize"] == 32 and index["recipe"]["quality"] == 80
    assert len(index["recipe"]["sources_sha256"]) == 64
    train = index["parts"]["train"]
    assert train["num_images"] == 9 and train["class_names"] == ["c0", "c1"]
    [shard] = train["shards"]
    content = (tmp_path / "out" / shard["name"]).read_bytes()
    assert shard["num_bytes"] == len(content) and shard["num_images"] == 9
    assert shard["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "name",
    ["/tmp", "", ".", "..", "../x", "a/b", ".packing", ".lock", "index.json", "bad_images.tsv"],
)
def test_a_part_is_a_folder_in_the_data_and_in_the_target(name: str) -> None:
    """Fault L0."""
    for parts in ((name, "val"), ("train", name)):
        with pytest.raises(ValueError, match="name folders in DATA, and '.*' is no such name"):
            PackOptions(parts=parts)


def test_files_that_the_tool_did_not_write_are_never_touched(data: Path, tmp_path: Path) -> None:
    """Fault L0."""
    out = tmp_path / "out"
    pack(data, out, SMALL)
    theirs = [out / "train" / name for name in ("7.tar", "12.json", "999999.tar", "notes.txt")]
    theirs += [out / "val" / "my.tar", out / "mine.txt", out / ".packing" / "notes.json"]
    for path in theirs:
        path.write_text("mine")
    write_picture(data / "train" / "c0" / "0.png", seed=50)  # all shards are made again
    pack(data, out, SMALL)
    Record(out).drop_parts_but(["train"])
    assert [path.read_text() for path in theirs] == ["mine"] * len(theirs)
    assert [path.name for path in (out / "val").iterdir()] == ["my.tar"]


def test_a_strangers_shard_is_not_written_over(data: Path, tmp_path: Path) -> None:
    """Fault L0."""
    strangers = tmp_path / "out" / "train" / "000000.tar"
    (tmp_path / "out").mkdir()
    Record(tmp_path / "out").claim(SMALL.recipe)
    strangers.parent.mkdir()
    strangers.write_text("mine")
    with pytest.raises(ValueError, match=f"{strangers} is not of this packing: move it"):
        pack(data, tmp_path / "out", SMALL)
    assert strangers.read_text() == "mine"


def test_a_link_in_the_place_of_a_part_is_not_followed(data: Path, tmp_path: Path) -> None:
    """Fault L0, R4."""
    theirs = tmp_path / "theirs"
    for folder in (theirs, tmp_path / "out"):
        folder.mkdir()
    (theirs / "000000.tar").write_text("mine")
    Record(tmp_path / "out").claim(SMALL.recipe)
    (tmp_path / "out" / "train").symlink_to(theirs)
    with pytest.raises(ValueError, match="train is a link, which is not followed: remove it"):
        pack(data, tmp_path / "out", SMALL)
    assert (theirs / "000000.tar").read_text() == "mine"


def test_a_packing_killed_at_its_very_beginning_goes_on(tmp_path: Path) -> None:
    """Fault R7."""
    (tmp_path / ".packing").mkdir()
    for _ in range(2):
        Record(tmp_path).claim(SMALL.recipe)


@pytest.mark.parametrize("content", ["[]", "null", '{"file": 5}', "[" * 100_000, '{"end": "x"}'])
def test_a_record_of_another_form_is_as_if_it_were_not_there(tmp_path: Path, content: str) -> None:
    """Fault R6."""
    (tmp_path / ".packing" / "train").mkdir(parents=True)
    (tmp_path / ".packing" / "train" / "000000.json").write_text(content)
    assert Record(tmp_path).finished("train", [Picture("a.png", 0, 0, 8, 0)]) == []
    (tmp_path / ".packing" / "options.json").write_text(content)
    with pytest.raises(ValueError, match="was packed with other options") as caught:
        Record(tmp_path).claim(SMALL.recipe)
    assert "\n" not in str(caught.value)


def test_what_is_shrunk_is_turned_upright_where_it_is_asked_for_and_the_index_says_so(
    tmp_path: Path, run_script: RunScript
) -> None:
    """Fault M3: pictures packed otherwise than they are to be read are refused."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for part, name in itertools.product(("train", "val"), ("ant", "bee")):
        (tmp_path / part / name).mkdir(parents=True)
        Image.linear_gradient("L").resize((80, 60)).save(
            tmp_path / part / name / "a.jpg", exif=exif
        )
        Image.linear_gradient("L").resize((8, 6)).save(tmp_path / part / name / "b.jpg", exif=exif)
    done = run_script(
        TOOL, tmp_path, tmp_path / "exif", "--resize", 30, "--orientation", "exif", "--workers", 1
    )
    assert done.returncode == 0, done.stderr
    pack(tmp_path, tmp_path / "ignore", PackOptions(resize=30, num_workers=1))
    pack(tmp_path, tmp_path / "copies", PackOptions(num_workers=1))
    for made, asked in itertools.product(("exif", "ignore", "copies"), ("exif", "ignore")):
        images = read_val(tmp_path / made, val_set="val", class_names=None, num_classes=2)
        options, recipe = LoaderOptions(4, 32), Recipe(asked, 36, 32)
        whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0), "hflip": 0.0}
        if made not in (asked, "copies"):
            refused = f"with --orientation {made}, and DATASET.ORIENTATION is {asked}: set it to"
            with pytest.raises(ValueError, match=refused):
                eval_loader(images, options, recipe)
            with pytest.raises(ValueError, match=refused):
                train_loader(images, replace(options, orientation=asked), **whole)
            continue
        pixels = next(iter(eval_loader(images, options, recipe))).images.float().mean(3)
        along_rows = pixels.mean(1).std(1) > pixels.mean(2).std(1)
        assert along_rows.tolist() == [asked == "exif"] * 4  # the small ones are read upright
    with pytest.raises(ValueError, match="--orientation exif has a meaning with --resize only"):
        PackOptions(orientation="exif")
