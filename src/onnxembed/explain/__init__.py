"""Why somebody else's vectors differ: the cause, proved by reproducing them, and what to change."""

from onnxembed.explain.explain import explain
from onnxembed.explain.live import System
from onnxembed.explain.report import Cause, Report
from onnxembed.explain.run import Theirs, explain_given, explain_system
from onnxembed.explain.scores import explain_scores

__all__ = ["Cause", "Report", "System", "Theirs", "explain", "explain_given", "explain_scores", "explain_system"]
