"""What `tools/valid.py` can tell beyond top-1 and top-5; the public names of the sub-modules.

`classes`: which outputs of the network the pictures' classes are. `real_labels`: several right
classes a picture. `calibration`: how far the network's own probabilities can be trusted. `table`:
what was predicted for each picture; `per_class`: for each class. `measure`: the form of a further
figure.
"""

from lib.evaluation.calibration import calibration_measure
from lib.evaluation.classes import ClassChoice, EvaluationSet, read_evaluation_set
from lib.evaluation.measure import Measure, Measured
from lib.evaluation.per_class import per_class_rows, write_per_class
from lib.evaluation.real_labels import RealLabels, read_real_labels
from lib.evaluation.table import write_predictions

__all__ = [
    "ClassChoice",
    "EvaluationSet",
    "Measure",
    "Measured",
    "RealLabels",
    "calibration_measure",
    "per_class_rows",
    "read_evaluation_set",
    "read_real_labels",
    "write_per_class",
    "write_predictions",
]
