"""The audit of a data set: decodes every file once, and finds faults of files, labels and splits."""

from vjepa.data.audit.findings import AuditReport, ClipNeeds, Finding
from vjepa.data.audit.run import check

__all__ = ["AuditReport", "ClipNeeds", "Finding", "check"]
