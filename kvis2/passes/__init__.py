"""One compiled pass over a live model: the probe that runs it, its rows, samples, progress."""

from kvis2.passes.compilation import UNTRACEABLE, Compiled, compiled, trace_count
from kvis2.passes.method import LINEAR, Method, Report, Settings
from kvis2.passes.prediction import Predicted, Prediction
from kvis2.passes.probe import Probe, Survey, Trace
from kvis2.passes.progress import reported, running
from kvis2.passes.resampling import along, blur, blurred, normalized, resize
from kvis2.passes.rows import automatic_rows
from kvis2.passes.sampling import (
    added_up,
    as_rows,
    by_copy,
    normal,
    repeated,
    row_indices,
    scores_of_pairs,
    total,
    uniform,
)
from kvis2.passes.sharing import SharedProbe

__all__ = [
    "LINEAR",
    "UNTRACEABLE",
    "Compiled",
    "Method",
    "Predicted",
    "Prediction",
    "Probe",
    "Report",
    "Settings",
    "SharedProbe",
    "Survey",
    "Trace",
    "added_up",
    "along",
    "as_rows",
    "automatic_rows",
    "blur",
    "blurred",
    "by_copy",
    "compiled",
    "normal",
    "normalized",
    "repeated",
    "reported",
    "resize",
    "row_indices",
    "running",
    "scores_of_pairs",
    "total",
    "trace_count",
    "uniform",
]
