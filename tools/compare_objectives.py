"""A recipe and its overlays at equal compute: probes of the trained encoder and at random init, over seeds.

python tools/compare_objectives.py --recipe configs/quickstart.yaml --overlays configs/objectives/*.yaml --out DIR

With --seconds the pace of each recipe is timed first, and each gets as many optimiser steps, schedules included, as
fit into that time of `fit`; with --steps each gets these; else each gets its own. Runs follow one another: pin the
command (taskset) and set OMP_NUM_THREADS to say what one has. DIR/result.json and DIR/table.md are written after
each run, and runs that DIR already holds are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vjepa.commands.report import write_result

PACE_STEPS = (20, 80)  # two lengths: what does not grow with the steps cancels
Result = dict[str, Any]


def fit(recipe: Sequence[Path], root: Path, flags: Sequence[str]) -> Result:
    """Run a recipe with its overlay as a user does; return its result.json."""
    command = [sys.executable, "-m", "vjepa", "fit", *(f"--config={file}" for file in recipe)]
    done = subprocess.run(
        [*command, "--trainer.default_root_dir", str(root), *flags], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{recipe[-1]}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return finished(root)


def finished(root: Path) -> Result:
    """The result.json of the newest run below `root`; empty if there is none."""
    found = sorted(root.glob("version_*/result.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(found[-1].read_text()) if found else {}


def seconds_per_step(recipe: Sequence[Path], root: Path) -> float:
    """Measure the pace of a recipe's `fit` on this machine."""
    quiet = ["--report", "null", "--trainer.limit_val_batches", "0"]
    short, long = (
        fit(recipe, root / str(steps), ["--trainer.max_steps", str(steps), *quiet])["fit_seconds"]
        for steps in PACE_STEPS
    )
    return (long - short) / (PACE_STEPS[1] - PACE_STEPS[0])


def scores(results: list[Result], label: str, probe: str, which: str) -> str:
    """Top-1 in %, mean and deviation over seeds."""
    each = [100 * result[f"probe_{label}"][probe][which] for result in results]
    spread = f" ± {statistics.stdev(each):.1f}" if len(each) > 1 else ""
    return f"{statistics.mean(each):.1f}{spread}"


def gain(results: list[Result], label: str) -> str:
    """Best probe of the trained encoder less the best at random init, in points, mean over seeds."""
    each = []
    for result in results:
        kinds = result[f"probe_{label}"].values()
        each.append(100 * (max(k["trained"] for k in kinds) - max(k["random init"] for k in kinds)))
    return f"{statistics.mean(each):+.1f}"


def markdown(runs: dict[str, list[Result]]) -> str:
    """A row for each recipe and probe: trained against random init for every label, and the compute."""
    first = next(iter(runs.values()))[0]
    labels = [key.removeprefix("probe_") for key in first if key.startswith("probe_")]
    chances = {label: next(iter(first[f"probe_{label}"].values()))["chance"] for label in labels}
    head = [f"{label} (chance {100 * chance:.1f}) | random init" for label, chance in chances.items()]
    lines = [
        "Top-1 in %, mean ± deviation over seeds.",
        "",
        f"| recipe | steps | seconds of fit | probe | {' | '.join(head)} |",
        f"|{'---|' * (4 + 2 * len(labels))}",
    ]
    for name, results in runs.items():
        seconds = statistics.mean(result["fit_seconds"] for result in results)
        about = f"| {name} ({len(results)} seeds) | {results[0]['steps']} | {seconds:.0f}"
        for probe in results[0][f"probe_{labels[0]}"]:
            cells = [
                scores(results, label, probe, which)
                for label in labels
                for which in ("trained", "random init")
            ]
            lines.append(f"{about} | {probe} | {' | '.join(cells)} |")
        gains = [f"{gain(results, label)} | " for label in labels]
        lines.append(f"{about} | best less best | {' | '.join(gains)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--overlays", type=Path, nargs="*", default=[], help="each makes a run of its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, help="of fit, for each recipe")
    parser.add_argument("--steps", type=int, help="for each recipe, whatever they take")
    parser.add_argument("--out", type=Path, required=True)
    given, flags = parser.parse_known_args()  # the rest are flags of every fit
    runs: dict[str, list[Result]] = {}
    paces: dict[str, float] = {}
    for recipe in ([given.recipe], *([given.recipe, overlay] for overlay in given.overlays)):
        name = recipe[-1].stem
        length = [] if given.steps is None else ["--trainer.max_steps", str(given.steps)]
        for seed in given.seeds:
            root = given.out / name / f"seed{seed}"
            result = finished(root)
            if name in runs:  # all seeds of a recipe take the same steps
                length = ["--trainer.max_steps", str(runs[name][0]["steps"])]
            elif not result and given.seconds is not None:
                paces[name] = seconds_per_step(recipe, given.out / name / "pace")
                length = ["--trainer.max_steps", str(round(given.seconds / paces[name]))]
            result = result or fit(recipe, root, [*length, "--seed_everything", str(seed), *flags])
            runs.setdefault(name, []).append(result)
            settings = {key: str(value) for key, value in vars(given).items()} | {"flags": flags}
            write_result(
                given.out, figures={"seconds_a_step": paces, "runs": runs}, settings=settings, seed=seed
            )
            table = markdown(runs)
            (given.out / "table.md").write_text(table, encoding="utf-8")
            print(table, flush=True)


if __name__ == "__main__":
    main()
