"""The audit as one self-contained HTML page: figures, histograms, findings, thumbnails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from vjepa.data.audit.examine import FileJob, thumbnail
from vjepa.data.audit.findings import AuditReport
from vjepa.data.jobs.engine import Running
from vjepa.files import write_bytes
from vjepa.names import redacted

NUM_SAMPLE, MAX_SUSPICIOUS = 24, 36  # thumbnails of about 4 kB each
MAX_LISTED = 200  # findings of one kind; all of them are in report.json
NUM_BARS = 30
WIDTH, HEIGHT = 460, 150
VIEWPORT = '<meta name="viewport" content="width=device-width">'
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: CanvasText }
:root { color-scheme: light dark } svg { max-width: 100%; color-scheme: light }
table { border-collapse: collapse; margin: .5em 0 } td, th { padding: .15em .8em .15em 0; text-align: left;
vertical-align: top } td.path { word-break: break-all } figure { display: inline-block; margin: .4em .8em .8em 0 }
figcaption { font-size: 12px; max-width: 128px; word-break: break-all } svg { background: #f6f6f6 }
"""


def write_page(path: Path, report: AuditReport, *, decoder: str, running: Running) -> None:
    """Write the page; `decoder` decodes the thumbnails, in the processes of `running`."""
    suspicious = list(dict.fromkeys(found.path for found in report.findings))
    suspicious = [name for name in suspicious if not report.files[name].reason][:MAX_SUSPICIOUS]
    readable = [name for name, file in report.files.items() if not file.reason]
    drawn = np.random.default_rng(0).permutation(len(readable))[:NUM_SAMPLE]
    sample = [readable[i] for i in np.sort(drawn)]
    pictures = _pictures(list(dict.fromkeys([*suspicious, *sample])), decoder, running)
    files = report.readable
    body = [
        f"<h1>{escape(report.manifest.describe())}</h1>",
        "<h2>Findings</h2>",
        *_findings(report),
        "<h2>Figures</h2>",
        _table((escape(name), escape(str(value))) for name, value in _summary(report)),
        "<h2>The files</h2>",
        _histogram("seconds of video", [file.seconds for file in files]),
        _histogram("frames per second", [1 / file.gap for file in files if file.gap]),
        _bars("width x height", list(report.sizes.items())),
        _bars("clips per class", sorted(report.labels.items(), key=lambda item: -item[1])),
        "<h2>Suspicious files</h2>" if suspicious else "",
        *(_figure(name, pictures[name], _reasons(report, name)) for name in suspicious),
        "<h2>A sample</h2>",
        *(_figure(name, pictures[name], "") for name in sample),
    ]
    head = f'<meta charset="utf-8">{VIEWPORT}<title>vjepa data check</title><style>{STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>'
    write_bytes(redacted(page).encode("utf-8", "replace"), path)  # a name on disk need not be Unicode


def _pictures(paths: Sequence[str], decoder: str, running: Running) -> dict[str, str]:
    results = running.run(thumbnail, [FileJob(path, (), decoder) for path in paths])
    return {paths[result.index]: result.value or "" for result in results}


def _summary(report: AuditReport) -> list[tuple[str, object]]:
    figures = report.figures()
    shown: list[tuple[str, object]] = [
        (k, v) for k, v in figures.items() if isinstance(v, (int, float)) and not isinstance(v, bool)
    ]
    small = figures["small_classes"]
    if small:
        listed = ", ".join(f"{name} ({count})" for name, count in list(small.items())[:20])
        shown.append(("small_classes", f"{len(small)}: {listed}" + (", ..." if len(small) > 20 else "")))
    return [(name, f"{value:,.4g}" if isinstance(value, float) else value) for name, value in shown]


def _reasons(report: AuditReport, path: str) -> str:
    return "; ".join(found.reason for found in report.findings if found.path == path)[:300]


def _findings(report: AuditReport) -> Iterable[str]:
    counts = Counter(found.kind for found in report.findings)
    if not counts:
        yield "<p>None.</p>"
    for kind, count in counts.items():
        of_kind = [found for found in report.findings if found.kind == kind]
        shown = f", the first {MAX_LISTED}" if count > MAX_LISTED else ""
        yield f"<h3>{kind}: {count}{shown}</h3>"
        yield _table((escape(found.path), escape(found.reason)) for found in of_kind[:MAX_LISTED])


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = (f'<tr><td class="path">{left}</td><td>{right}</td></tr>' for left, right in rows)
    return f"<table>{''.join(lines)}</table>"


def _figure(path: str, picture: str, reason: str) -> str:
    image = f'<img alt="" src="data:image/jpeg;base64,{picture}">' if picture else "no picture"
    caption = escape(Path(path).name) + (f"<br>{escape(reason)}" if reason else "")
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _histogram(title: str, values: Sequence[float]) -> str:
    """Draw bars of equal width over the range of the values; the last holds all beyond the 99th percentile."""
    if not values:
        return ""
    low, high = min(values), float(np.quantile(values, 0.99))
    if high - low < 1e-6 * max(high, 1.0):
        return _bars(title, [(f"{low:.4g}", len(values))])
    counts, edges = np.histogram(np.minimum(values, high), bins=NUM_BARS, range=(low, high))
    return _bars(title, [(f"{edge:.4g}", int(n)) for edge, n in zip(edges[:-1], counts, strict=True)])


def _bars(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """Draw one bar per count with its name and count as tooltip; only the first and the last have a label."""
    if not counts:
        return ""
    if len(counts) > WIDTH:
        title, counts = f"{title} (the first {WIDTH} of {len(counts)})", counts[:WIDTH]
    most, wide = max(count for _, count in counts) or 1, WIDTH / len(counts)
    room = HEIGHT - 40
    bars = "".join(
        f'<rect x="{i * wide:.2f}" y="{20 + room * (1 - n / most):.2f}" width="{max(wide - 1, 0.5):.2f}" '
        f'height="{room * n / most:.2f}" fill="#4878a8"><title>{escape(name)}: {n}</title></rect>'
        for i, (name, n) in enumerate(counts)
    )
    names = f'<text x="2" y="{HEIGHT - 5}">{escape(counts[0][0][:24])}</text>'
    if len(counts) > 1:
        names += (
            f'<text x="{WIDTH - 2}" y="{HEIGHT - 5}" text-anchor="end">{escape(counts[-1][0][:24])}</text>'
        )
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" font-size="12"><text x="2" y="14">{escape(title)}, '
        f"at most {most}</text>{bars}{names}</svg></figure>"
    )
