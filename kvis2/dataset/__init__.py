"""Explain a data set: from a folder, a table or an archive to one folder of maps and a page.

    kvis2 explain MobileNetV2 photos --out explained
    kvis2 report explained

`explain_dataset` does the same from a notebook, and `read` gives a table of what was found.
"""

from kvis2.dataset.auditing import add_audit_arguments, audit_page, run_audit
from kvis2.dataset.command import add_arguments, run
from kvis2.dataset.comparing import add_compare_arguments, run_compare
from kvis2.dataset.describing import add_describe_arguments, run_describe
from kvis2.dataset.explain import explain_dataset
from kvis2.dataset.exporters import to_coco, to_fiftyone, to_label_studio, to_overlays
from kvis2.dataset.exporting import add_export_arguments, run_export
from kvis2.dataset.page import report
from kvis2.dataset.reading import Reader, pipeline
from kvis2.dataset.reporting import add_report_arguments, run_report
from kvis2.dataset.running import Summary
from kvis2.dataset.sources import Row, rows_of
from kvis2.dataset.table import Table, read

__all__ = [
    "Reader",
    "Row",
    "Summary",
    "Table",
    "add_arguments",
    "add_audit_arguments",
    "add_compare_arguments",
    "add_describe_arguments",
    "add_export_arguments",
    "add_report_arguments",
    "audit_page",
    "explain_dataset",
    "pipeline",
    "read",
    "report",
    "rows_of",
    "run",
    "run_audit",
    "run_compare",
    "run_describe",
    "run_export",
    "run_report",
    "to_coco",
    "to_fiftyone",
    "to_label_studio",
    "to_overlays",
]
