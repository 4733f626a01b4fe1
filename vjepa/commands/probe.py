"""The verb `vjepa probe`."""

from __future__ import annotations

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vjepa.commands.flags import Flat
from vjepa.commands.report import Report
from vjepa.probes.anticipation.ek100_annotations import TASKS
from vjepa.probes.anticipation.run import EK100, AnticipationChoice, AnticipationRun, run_anticipation
from vjepa.probes.base import ProbeError
from vjepa.probes.comparison import compared_in_words
from vjepa.probes.fitting.trials import ProbeSettings
from vjepa.probes.manifests import LabelledVideos
from vjepa.probes.recipe import ClipChoice
from vjepa.probes.run import Compute, ProbeRun, ProbeWork, TokenCache, run_probe

log = logging.getLogger(__name__)

VIDEOS, CLIPS, GRID = LabelledVideos(), ClipChoice(), ProbeSettings()
TOKENS, COMPUTE, ANTICIPATION = TokenCache(), Compute(), AnticipationChoice()
UNREAD_BY_EK100 = (  # flags that this protocol does not read
    *("folder", "val_share", "label", "num_per_class", "segments", "views", "layers", "augment"),
    *("cache", "rank", "world_size", "probe", "report"),
)


def probe(
    *,
    encoder: str,
    out: Path,
    videos: Flat[LabelledVideos] = VIDEOS,
    protocol: str | None = None,
    probe: str = "attentive",
    clips: Flat[ClipChoice] = CLIPS,
    random_init: bool = True,
    report: bool = False,
    grid: ProbeSettings = GRID,
    tokens: Flat[TokenCache] = TOKENS,
    compute: Flat[Compute] = COMPUTE,
    anticipation: AnticipationChoice = ANTICIPATION,
) -> Report:
    """Train a probe on a frozen encoder and test it once on videos it has not seen.

    Args:
        encoder: Folder or .ckpt of the encoder.
        out: Folder for the probe (which `vjepa classify` opens) and result.json.
        videos: The labelled videos.
        protocol: A published protocol by name, like ssv2. Other flags replace single values of it; a `--grid`
            value that equals its default does not.
        probe: Kind of probe: linear, attentive, knn, finetune, or the class path of a Probe of your own, like
            my_package.MyProbe. finetune also trains the encoder's last blocks (`--grid.num_blocks`), and writes the
            tuned encoder to the folder `encoder` in `out`.
        clips: How clips are cut.
        random_init: Also probe the same architecture with random weights, to compare.
        report: Also write report.html: confusion, classes, the worst clips, and the attention of the probe.
        grid: How the probe is trained; a held-out fifth of the training clips chooses from it. `--lr 1e-3
            3e-4` is short for `--grid.lr '[1e-3, 3e-4]'`, `--weight_decay` for `--grid.weight_decay`.
        tokens: Where tokens are kept.
        compute: How and where the run computes.
        anticipation: What protocol ek100 alone needs. Its train and val are the official EPIC_100_train.csv and
            EPIC_100_validation.csv, root the folder of the videos; val then chooses the head, as published.
    """
    work = ProbeWork(
        encoder=encoder,
        out=out,
        videos=videos,
        protocol=protocol,
        probe=probe,
        clips=clips,
        grid=grid,
        random_init=random_init,
        page=report,
        tokens=tokens,
        compute=compute,
    )
    if protocol == EK100:
        _refuse_unread(work)
        return _anticipation_report(run_anticipation(work, anticipation))
    if anticipation != ANTICIPATION:
        raise ProbeError(
            f"--anticipation.* without protocol {EK100}. Give --protocol {EK100}, or omit the flag."
        )
    run = run_probe(work)
    if run is None:
        return Report(title="features", figures={"rank": tokens.rank, "world_size": tokens.world_size})
    return _report(run)


def _refuse_unread(work: ProbeWork) -> None:
    """Raise `ProbeError` if a flag was given that protocol ek100 does not read."""
    given = {"probe": work.probe != "attentive", "report": work.page}
    for group, default in ((work.videos, VIDEOS), (work.clips, CLIPS), (work.tokens, TOKENS)):
        given |= {f.name: getattr(group, f.name) != getattr(default, f.name) for f in fields(group)}
    unread = [f"--{name}" for name in UNREAD_BY_EK100 if given[name]]
    if unread:
        raise ProbeError(f"protocol {EK100} does not use {', '.join(unread)}. Omit it.")


def _report(run: ProbeRun) -> Report:
    result, baseline, scores = run.result, run.baseline, run.result.scores
    if not result.converged:
        log.warning("the probe had not converged: raise --grid.num_steps or --grid.max_iterations")
    compared = {"encoder": result, "random init": baseline}
    many = len(run.label_names) > 5  # of five classes, the right one is always among the best five
    rows = [
        {"features": name, "top1": r.top1, "95 %": "{:.3g} to {:.3g}".format(*r.scores.interval)}
        | ({"class_mean": r.class_mean} if result.is_unbalanced else {})
        | ({"top5": r.scores.top5} if many else {})
        | {"converged": r.converged}
        for name, r in compared.items()
        if r is not None
    ]
    words = "" if baseline is None else f"the {result.kind} probe {compared_in_words(result, baseline)}"
    return Report(
        title=f"{result.kind} probe, {result.num_train} training and {result.num_val} validation clips",
        rows=rows,
        figures={
            "top1": scores.top1,
            "interval": scores.interval,
            "class_mean": result.class_mean,
            "top5": scores.top5 if many else None,
            "random_init_top1": None if baseline is None else baseline.top1,
            "chance": scores.chance,
            "converged": result.converged,
            "random_init_converged": None if baseline is None else baseline.converged,
            "num_train": result.num_train,
            "num_val": result.num_val,
            "num_failures": len(run.failures),
            "per_class": dict(zip(run.label_names, scores.per_class, strict=True)),
            "labels": run.label_names,
            "confusion": scores.confusion,
            "chosen": result.settings,
            "history": [asdict(mark) for mark in result.history],
            "failures": [asdict(failure) for failure in run.failures],
            "recipe": run.recipe,
        },
        closing=(words,) if words else (),
    )


def _anticipation_report(run: AnticipationRun) -> Report:
    best, baseline, ids = run.best, run.baseline, run.ids
    classes = dict(zip(TASKS, (len(ids.verbs), len(ids.nouns), len(ids.actions)), strict=True))
    compared = {"encoder": best, "random init": baseline}
    rows = [
        {"features": name, **{f"{task} recall@5": getattr(found, task) for task in TASKS}}
        for name, found in compared.items()
        if found is not None
    ]
    figures: dict[str, Any] = {f"{task}_recall5": getattr(best, task) for task in TASKS}
    figures |= {f"random_init_{task}_recall5": getattr(baseline, task, None) for task in TASKS}
    figures |= {
        "chance": {task: min(1.0, 5 / count) for task, count in classes.items()},
        "chosen": best.setting,
        "heads": [head.setting | {task: getattr(head, task) for task in TASKS} for head in run.heads],
        "num_classes": classes,
        "num_failures": len(run.failures),
        "failures": [asdict(f) for f in sorted(run.failures, key=lambda f: (f.path, f.reason))],
        **run.counts,
        "recipe": run.recipe,
    }
    if run.failures:
        log.warning("%d videos or clips could not be read: see failures in result.json", len(run.failures))
    return Report("anticipation of actions, class-mean recall at 5", rows, figures)
