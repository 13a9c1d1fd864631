"""rgb: every mode and depth that Pillow opens becomes the 8-bit picture that it shows."""

from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pictures
from PIL import Image, ImageOps

from lib.config.recipe import Recipe
from lib.data.bad_images import BadImageLedger
from lib.data.image_list import ImageList
from lib.data.loading import EvalImages
from lib.data.rgb import open_rgb, read_head, warnings_named

DEEP = np.random.default_rng(0).integers(0, 65536, (10, 12), dtype=np.uint16)
UPPER = (DEEP >> 8).astype(np.uint8)
ORIENTATION = 0x0112


def saved(array: np.ndarray, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, form, **options)
    return file.getvalue()


def tiff(
    data: bytes,
    *,
    bits: int = 16,
    order: str = "<",
    photometric: int = 1,  # 0: white is zero
    sample_format: int = 1,  # 2: signed, 3: floating-point
    extra: int | None = None,  # a second sample; 1: premultiplied alpha
) -> bytes:
    """Return an uncompressed TIFF file of `DEEP`'s size."""
    num_samples = 1 if extra is None else 2
    height, width = DEEP.shape
    tags = {
        256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: num_samples,
        278: height, 279: len(data), 338: extra, 339: sample_format,
    }  # fmt: skip
    fields = b"".join(
        struct.pack(f"{order}HHI", tag, 3, count) + struct.pack(f"{order}HH", value, value)[:4]
        for tag, value in tags.items()
        if value is not None
        for count in ([num_samples] if tag in (258, 339) else [1])
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(fields) // 12) + fields + bytes(4)


def twelve_bits() -> bytes:
    """Return `DEEP`'s upper 12 bits, two pixels in three bytes."""
    pairs = (DEEP >> 4).astype(np.uint32).reshape(-1, 2)
    whole = (pairs[:, 0] << 12 | pairs[:, 1]).tolist()
    return b"".join(number.to_bytes(3, "big") for number in whole)


SHARES = (UPPER / np.float32(255)).astype("<f4")
PGM = b"P5\n12 10\n%d\n"
SCALED = {
    "PNG": saved(DEEP, "PNG"),
    "TIFF": saved(DEEP, "TIFF"),
    "TIFF, packed": saved(DEEP, "TIFF", compression="tiff_lzw"),
    "TIFF, big-endian": tiff(DEEP.astype(">u2").tobytes(), order=">"),
    "TIFF, 12 bits": tiff(twelve_bits(), bits=12),
    "TIFF, white is zero": tiff((~DEEP).astype("<u2").tobytes(), photometric=0),
    "TIFF, floating-point": tiff(SHARES.tobytes(), bits=32, sample_format=3),
    "TIFF, its negative": tiff((1 - SHARES).tobytes(), bits=32, sample_format=3, photometric=0),
    "TIFF, premultiplied": tiff(np.dstack([UPPER, 0 * UPPER + 255]).tobytes(), bits=8, extra=1),
    "PGM": PGM % 65535 + DEEP.astype(">u2").tobytes(),
    "PGM to 1023": PGM % 1023 + (DEEP >> 6).astype(">u2").tobytes(),
    "PGM in words": b"P2\n12 10\n65535\n" + " ".join(map(str, DEEP.ravel())).encode(),
    "PFM": b"Pf\n12 10\n-1.0\n" + SHARES[::-1].tobytes(),
}


@pytest.mark.parametrize("kind", SCALED)
def test_deep_grey_is_scaled_by_its_depth(kind: str) -> None:
    """Fault S1: 16 bits are the 8-bit picture of the same pixels >> 8, and so on."""
    pixels = np.asarray(open_rgb(SCALED[kind]))
    np.testing.assert_array_equal(pixels, np.dstack([UPPER] * 3))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff((SHARES * 255).tobytes(), bits=32, sample_format=3), "values of 0 to 255, and 0 has"),
        (tiff((SHARES - 1).tobytes(), bits=32, sample_format=3), "values of -1 to 0"),
        (tiff((SHARES * np.nan).tobytes(), bits=32, sample_format=3), "values of nan to nan"),
        (tiff(DEEP.astype("<u4").tobytes(), bits=32), "grey values of 32 bits"),
        (tiff(DEEP.astype("<i4").tobytes(), bits=32, sample_format=2), "numbers are signed"),
        (tiff((DEEP >> 1).tobytes(), sample_format=2), "numbers are signed"),
        (tiff((UPPER >> 1).tobytes(), bits=8, sample_format=2), "numbers are signed"),
        (saved(DEEP.astype(np.int32), "TIFF"), "numbers are signed"),
        (saved(DEEP.astype(np.int32), "IM"), "grey values of unknown bits"),
    ],
)
def test_grey_whose_white_is_not_said_is_refused_with_the_reason(
    content: bytes, reason: str
) -> None:
    """Fault S1."""
    with pytest.raises(ValueError, match=reason):
        open_rgb(content)


@pytest.mark.parametrize("number", range(9))
def test_exif_orientation_turns_a_picture_upright_where_it_is_asked_for(number: int) -> None:
    """Fault M3: as Pillow's own exif_transpose; without being asked nothing is turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = number
    for form in ("JPEG", "PNG", "WEBP"):
        content = saved(np.dstack([UPPER] * 3), form, exif=exif)
        with Image.open(io.BytesIO(content)) as stored:
            upright = ImageOps.exif_transpose(stored).convert("RGB")
            plain = stored.convert("RGB")
        assert open_rgb(content, orientation="exif").tobytes() == upright.tobytes()
        assert open_rgb(content).tobytes() == plain.tobytes()


def test_pillows_warnings_name_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault M2: of a file, of a packed picture, and from several threads."""
    write_pictures(tmp_path, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 48 - 1)
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(4) as threads:
        warnings.simplefilter("always")
        shown_by = warnings.showwarning
        list(threads.map(open_rgb, [tmp_path / f"{number}.png" for number in range(4)]))
        with warnings_named("0001.tar/a.png"):
            open_rgb((tmp_path / "0.png").read_bytes())
        read_head(tmp_path / "1.png")
        assert warnings.showwarning is shown_by
    texts = sorted(str(warning.message) for warning in caught)
    names = [text.partition(": Image size (1920 pixels) exceeds")[0] for text in texts]
    expected = [f"'{tmp_path}/{number}.png'" for number in (0, 1, 1, 2, 3)]
    assert names == sorted([*expected, "'0001.tar/a.png'"])
    assert {warning.category for warning in caught} == {Image.DecompressionBombWarning}


def test_twelve_bits_in_a_file_of_sixteen_are_told(tmp_path: Path) -> None:
    """Fault S1: such a file is nearly black by its format, which has no word for the depth."""
    (tmp_path / "scan.png").write_bytes(saved(DEEP >> 4, "PNG"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_rgb(tmp_path / "scan.png")
        open_rgb(saved(DEEP, "PNG"))
        open_rgb(saved(0 * DEEP, "PNG"))  # black is no sign
    assert [str(warning.message).partition(", and")[0] for warning in caught] == [
        f"'{tmp_path}/scan.png': grey values of 16 bits"
    ]


def test_a_palettes_transparency_is_dropped_without_a_warning() -> None:
    """Fault M2: it is what the documents say of all transparency."""
    file = io.BytesIO()
    picture = Image.fromarray(UPPER).convert("P")
    picture.save(file, "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = open_rgb(file.getvalue())
    assert pixels.tobytes() == picture.convert("RGB").tobytes()


def test_a_refused_picture_is_a_bad_one_with_its_reason(tmp_path: Path) -> None:
    """Fault S1: it is told to the run's ledger, as a damaged file is."""
    path = tmp_path / "a.tif"
    path.write_bytes(tiff((SHARES * 255).tobytes(), bits=32, sample_format=3))
    images = ImageList((str(path),), (0,), ("a",))
    (bad,) = EvalImages(images, Recipe.for_crop(32))[0, 0].bad
    assert bad.path == str(path) and "floating-point values of 0 to 255" in bad.reason
    ledger = BadImageLedger(None, policy="skip", max_share=0.5, num_images=1)
    with pytest.raises(ValueError, match="1 of 1 pictures can't be read"):
        ledger.record([bad])


def planar_tiff(values: tuple[int, ...], *, bits: int) -> bytes:
    """A picture of 2 x 2 in one colour, its planes one after the other."""
    planes = [struct.pack("<H" if bits == 16 else "B", value) * 4 for value in values]
    tags = [
        (256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 3, 0), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 3, 0), (284, 3, 1, 2),
    ]  # fmt: skip
    after = 8 + 2 + 12 * len(tags) + 4
    size = len(planes[0])
    offsets = [after + 30 + number * size for number in range(3)]
    places = {258: after, 273: after + 6, 279: after + 18}
    fields = b"".join(
        struct.pack("<HHII", tag, kind, count, places.get(tag, value))
        for tag, kind, count, value in tags
    )
    extra = struct.pack("<3H3I3I", *[bits] * 3, *offsets, *[size] * 3)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + fields + struct.pack("<I", 0) + extra + b"".join(planes)


def test_deep_colours_in_separate_planes_are_refused() -> None:
    """Fault S1: Pillow takes their low bytes for pixels."""
    assert open_rgb(planar_tiff((255, 128, 1), bits=8)).getpixel((0, 0)) == (255, 128, 1)
    with pytest.raises(ValueError, match="separate planes: save it interleaved"):
        open_rgb(planar_tiff((0xFF10, 0x8020, 0x0030), bits=16))
