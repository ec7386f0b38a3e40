"""Writing a finished run out as something other programs and people use."""

from shoal.export.asked import ExportResult
from shoal.export.export import export
from shoal.export.journal import JOURNAL_NAME
from shoal.export.kinds import KINDS, LAYOUTS, MODES
from shoal.export.undo import UndoResult, undo

__all__ = ["JOURNAL_NAME", "KINDS", "LAYOUTS", "MODES", "ExportResult", "UndoResult", "export", "undo"]
