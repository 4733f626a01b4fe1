"""The finished items of a long job, one line of JSON per item, safe against a stop at any moment."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from vjepa.data.jobs.local import JobResult
from vjepa.errors import UsageError
from vjepa.readers import parse_json

SYNC_SECONDS = 1.0  # work that a power cut may lose; a killed process loses nothing


class Journal:
    """Results by key, read from the JSON lines of `path` and appended to it; a missing file is created."""

    def __init__(self, path: Path) -> None:
        self.done: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read(path) if path.exists() else 0
        self._file = path.open("ab")
        self._file.truncate(whole)
        self._synced = time.monotonic()

    def _read(self, path: Path) -> int:
        """Read the finished items; return how many bytes of the file are whole lines."""
        whole = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break  # incomplete because of a stop: that item is repeated
                self._parse(path, number, line)
                whole += len(line)
        return whole

    def _parse(self, path: Path, number: int, line: bytes) -> None:
        try:
            entry = parse_json(line, path, number)
            self.done[entry.pop("key")] = {name: entry[name] for name in ("value", "error", "ended")}
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise UsageError(
                f"{path}:{number}: not a line of a job's journal. Delete the file to begin again"
            ) from e

    def add(self, key: str, result: JobResult[Any]) -> JobResult[Any]:
        """Save a result; return it with its value as JSON will restore it."""
        line = json.dumps({"key": key, "value": result.value, "error": result.error, "ended": result.ended})
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self._sync()
        return replace(result, value=json.loads(line)["value"])

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync()
        self._file.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()
