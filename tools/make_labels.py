"""Write the label file of a folder of class folders: python tools/make_labels.py VAL LABELS"""

from __future__ import annotations

from pathlib import Path

import _init_paths  # noqa: F401  puts the repository on sys.path

from lib.runtime.cli import EXIT_OK, ArgumentParser, run_script, say
from lib.runtime.text import counted


def main() -> int:
    """Write a line `<file> <class number, from 0>` for each picture."""
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("folder", metavar="VAL", type=Path, help="holds class folders of pictures")
    add("labels", metavar="LABELS", type=Path, help="the file to write, such as val_label.txt")
    add(
        "--classes",
        type=Path,
        help="the network's ONNX file, its run's classes.json, or a text file with a class name a "
        "line: they say which output is which class (default: the sorted folder names)",
    )
    args = parser.parse_args()

    from lib.data.label_file import write_labels
    from lib.offline.labels import labels_of_folder, read_class_names
    from lib.runtime.files import check_outputs

    names = read_class_names(args.classes) if args.classes else None
    if args.classes and names is None:
        say(f"{args.classes} records no class names; the sorted folder names are taken")
    found = labels_of_folder(args.folder, names)
    check_outputs({"LABELS": args.labels}, (args.classes, *args.folder.glob("**/*")))
    for line in found.left_out.lines(args.folder):
        say(line)
    labels = found.labels
    write_labels(labels, args.labels)
    num_classes = len(set(labels.values()))
    classes = counted(num_classes, "class", "classes")
    say(f"{counted(len(labels), 'picture')} of {classes}: {args.labels}")
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
