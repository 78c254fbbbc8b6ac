"""Why somebody else's vectors differ: the cause, proved by reproducing them, and what to change."""

from onnxembed.explain.explain import explain
from onnxembed.explain.report import Cause, Report

__all__ = ["Cause", "Report", "explain"]
