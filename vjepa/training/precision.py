"""The precisions that a run can train in."""

from __future__ import annotations

from typing import Literal, cast, get_args

from vjepa.errors import SettingError

PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]
SHORT: dict[str, PrecisionName] = {"None": "32-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def precision_name(given: int | str | None) -> PrecisionName:
    """Return the full name of a precision as Lightning's trainer takes it.

    >>> precision_name("bf16"), precision_name(None)
    ('bf16-mixed', '32-true')

    Raises:
        SettingError: If no run trains in this precision.
    """
    if given == "bf16-true":
        raise SettingError(
            "--trainer.precision bf16-true is not supported: it was measured to be no faster than bf16-mixed and to "
            "take more memory. Set it to bf16-mixed."
        )
    allowed = get_args(PrecisionName)
    name = SHORT.get(str(given), given)
    if name not in allowed:
        raise SettingError(
            f"--trainer.precision {given} is not supported. Set it to {', '.join(allowed[:-1])} or {allowed[-1]}."
        )
    return cast("PrecisionName", name)
