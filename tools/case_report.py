"""Report a finished run as the launchers do: <case name>.log, the loss list, the closing block."""

from __future__ import annotations

from pathlib import Path

import _init_paths  # noqa: F401

from lib.report.launcher_report import write_report
from lib.runtime.cli import EXIT_OK, ArgumentParser, run_script, say


def main() -> int:
    """Write both files, print the closing block, and return the exit code."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("run_folder", type=Path, help="holds result.json and metrics.jsonl")
    parser.add_argument("output_folder", type=Path, help="gets the case log and the loss list")
    parser.add_argument(
        "--e2e_time_s", type=int, required=True, help="seconds that the whole launcher took"
    )
    arguments = parser.parse_args()
    block = write_report(
        arguments.run_folder, arguments.output_folder, e2e_time_s=arguments.e2e_time_s
    )
    say(*block.split("\n"))
    return EXIT_OK


if __name__ == "__main__":
    run_script(main)
