"""A table of the reference cases: the tolerance that each states, and the largest difference that the tests see.

python tools/reference_table.py

Runs the tests that read a case and writes down what they compare with its tensors. Lists and tables (masks, keys,
schedules) are compared by the tests themselves, to the bit or to what stands in them: they have no difference.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
READS_A_CASE = re.compile(r"reference_case|reference_json|hf_case|FIXTURES")


class Recorder:
    """A pytest plug-in that knows the tensors of every case, and sees what the tests compare with them."""

    def __init__(self) -> None:
        self.cases: dict[str, str] = {}  # name -> stated tolerance
        self.largest: dict[str, float] = defaultdict(float)
        self.compared: Counter[str] = Counter()
        self.failed: list[str] = []
        self._owners: dict[int, str] = {}  # address of a tensor's storage -> case
        self._alive: list[Any] = []  # else an address could be given to another tensor

    def pytest_sessionstart(self) -> None:
        """Before the tests are imported: look over the shoulder of two functions."""
        from tests import reference

        load, load_json, close = (
            reference.reference_case,
            reference.reference_json,
            torch.testing.assert_close,
        )

        def reference_case(name: str) -> Any:
            case = load(name)
            stated = case.about["tolerance"]  # a mapping, or the word "exact"
            self.cases[name] = (
                stated if isinstance(stated, str) else ", ".join(f"{k} {v:g}" for k, v in stated.items())
            )
            self._alive.append(case)
            for tensor in case.tensors.values():
                self._owners[tensor.untyped_storage().data_ptr()] = name
            return case

        def reference_json(name: str) -> Any:
            self.cases[Path(name).stem] = "in the test"
            return load_json(name)

        def assert_close(actual: Any, expected: Any, *args: Any, **kwargs: Any) -> None:
            close(actual, expected, *args, **kwargs)
            if isinstance(actual, Tensor) and isinstance(expected, Tensor) and actual.numel():
                self._note(actual, expected)

        reference.reference_case, reference.reference_json = reference_case, reference_json
        torch.testing.assert_close = assert_close

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember what fails."""
        if report.failed:
            self.failed.append(report.nodeid)

    def _note(self, actual: Tensor, expected: Tensor) -> None:
        owners = [self._owners.get(t.untyped_storage().data_ptr()) for t in (expected, actual)]
        case = next((owner for owner in owners if owner), None)
        if case is not None:
            apart = (actual.detach().double() - expected.detach().double()).abs().max()
            self.largest[case] = max(self.largest[case], float(apart))
            self.compared[case] += 1


def main() -> None:
    """Run the tests and print the table."""
    recorder = Recorder()
    files = [
        str(p) for p in sorted((ROOT / "tests").rglob("test_*.py")) if READS_A_CASE.search(p.read_text())
    ]
    pytest.main(["-q", "--no-header", "-p", "no:xdist", f"--rootdir={ROOT}", *files], plugins=[recorder])
    print("| case | stated tolerance | largest difference | tensors compared |\n|---|---|---|---|")
    for case, tolerance in sorted(recorder.cases.items()):
        count = recorder.compared[case]
        apart = f"{recorder.largest[case]:.1e}" if count else "none: equal"
        print(f"| {case} | {tolerance} | {apart} | {count or 'by the test'} |")
    print("failed:", recorder.failed or "none")


if __name__ == "__main__":
    main()
