"""Write scikit-learn's handwritten digits as an image folder: python tools/make_digits.py DIR"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.runtime.cli import ArgumentParser, run_script, say
from lib.runtime.files import write_atomically

_EVERY_HELD_OUT = 5  # each fifth picture of a class goes to val/


def main() -> int:
    """Write DIR/train/<digit>/ and DIR/val/<digit>/, 8 x 8 grey PNG files."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("folder", type=Path, help="where to write train/ and val/")
    folder = parser.parse_args().folder
    num_train, num_val = write_digits(folder)
    say(f"{num_train} pictures to train on and {num_val} held out, in {folder}")
    return 0


def write_digits(folder: Path) -> tuple[int, int]:
    """Write the pictures; return how many went to train/ and to val/."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()  # images: 1797 x 8 x 8, values 0..16
    seen = [0] * 10
    num_val = 0
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        held_out = seen[digit] % _EVERY_HELD_OUT == 0
        seen[digit] += 1
        num_val += held_out
        target = folder / ("val" if held_out else "train") / str(digit)
        target.mkdir(parents=True, exist_ok=True)
        grey = np.round(pixels * (255 / 16)).astype(np.uint8)
        content = BytesIO()
        Image.fromarray(grey).save(content, "PNG")
        write_atomically(content.getbuffer(), target / f"{number:04d}.png", durable=False)
    return sum(seen) - num_val, num_val


if __name__ == "__main__":
    run_script(main)
