"""The audit of a data set: every file decoded once, and what is wrong among files, labels and splits."""

from vjepa.data.audit.findings import AuditReport, ClipNeeds, Finding
from vjepa.data.audit.run import check

__all__ = ["AuditReport", "ClipNeeds", "Finding", "check"]
