"""Find the rules of a pack in texts: which ones match, and where, in time linear in the text.

A `Scanner` takes prompts, lists, columns and files; a `Pack` is its rules, as data. Neither needs torch.
"""

from __future__ import annotations

from flyball._native import Pack as Pack
from flyball._native import Report as Report
from flyball.scan.batch import Batch as Batch
from flyball.scan.file import FileScan as FileScan
from flyball.scan.file import Line as Line
from flyball.scan.legacy import legacy_density as legacy_density
from flyball.scan.report import Finding as Finding
from flyball.scan.scanner import Scanner as Scanner

__all__ = ["Batch", "FileScan", "Finding", "Line", "Pack", "Report", "Scanner", "legacy_density"]
