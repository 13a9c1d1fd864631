"""Whether training can start on this machine, and what to mend where it cannot.

Imports no torch: it has an answer too where `import torch` fails, hangs or crashes.
"""

from lib.doctor.facts import Cann, Facts, gather
from lib.doctor.probe import Probe, run_probe
from lib.doctor.report import as_json, as_text, exit_code
from lib.doctor.verdicts import OK, PROBLEM, WARNING, Finding, judge

__all__ = [
    "OK",
    "PROBLEM",
    "WARNING",
    "Cann",
    "Facts",
    "Finding",
    "Probe",
    "as_json",
    "as_text",
    "exit_code",
    "gather",
    "judge",
    "run_probe",
]
