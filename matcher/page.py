"""The report as one HTML page that needs nothing else: timeline, people, boxes.

Promise: no script, no font, no address outside; readable in light and dark; every text is escaped.
Identities are pseudonyms and shown as such.
"""

from __future__ import annotations

import contextlib
import datetime
from html import escape
from pathlib import Path

from matcher.export import ExportError
from matcher.report import SHORT, Person, Who, title
from reid.v1.query_pb2 import Edge

MOST_ROWS = 200  # people drawn; the table says how many more there are
_LEFT, _WIDTH, _ROW, _TOP = 110, 1000, 26, 34
# Distinguishable for most eyes, also on dark ground: Okabe and Ito, 2008, without black and yellow.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d4dae0;--ground:#fff;
--row:#f4f6f8;--warn:#b42318}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa5b1;--line:#3a424b;--ground:#15181c;
--row:#1d2126;--warn:#ff8a7a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);margin:2rem auto;
max-width:1160px;padding:0 1.5rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}
p{margin:.3rem 0;color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:600}td.n,th.n{text-align:right}code{font-size:.92em}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:12px system-ui,sans-serif}
svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line)}svg .row{fill:var(--row)}
.key{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;margin:.5rem 0 .8rem;color:var(--soft)}
.key i{display:inline-block;width:.9rem;height:.9rem;border-radius:3px;vertical-align:-.1rem;
margin-right:.4rem}.alarm{color:var(--warn)}.scroll{overflow-x:auto}
"""


def page(found: Who, edges: list[Edge], *, made_ns: int) -> str:
    """The page.

    Args:
        made_ns: when, UTC.
    """
    cameras = sorted({visit.camera for person in found.people for visit in person.visits})
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(cameras)}
    people = sorted(found.people, key=lambda person: (person.first_ns, person.identity_id))
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width,initial-scale=1'>",
        f"<title>Who was seen where and when</title><style>{_STYLE}</style></head><body>",
        "<h1>Who was seen where and when</h1>",
        f"<p>{escape(title(found))}.</p>",
        f"<p>Made {_time(made_ns)} UTC. Each line is a pseudonym: probably one person, by "
        "appearance, for at most a day. It is nobody's name.</p>",
        "<h2>Timeline</h2>",
        _key(colours),
        f"<div class=scroll>{_timeline(people[:MOST_ROWS], colours)}</div>",
    ]
    if len(people) > MOST_ROWS:
        parts.append(f"<p>{len(people) - MOST_ROWS} more are in the table only.</p>")
    parts += ["<h2>People</h2>", _people(people), "<h2>Boxes</h2>", _boxes(edges, made_ns)]
    parts.append("</body></html>")
    return "".join(parts)


def write(path: Path, text: str) -> None:
    """Write the page under its name when it is whole.

    Raises:
        ExportError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise ExportError(f"{path}: cannot be written ({error.strerror or error})") from error


def _key(colours: dict[str, str]) -> str:
    entries = (
        f"<span><i style='background:{colour}'></i>{escape(name)}</span>"
        for name, colour in colours.items()
    )
    return f"<div class=key>{''.join(entries)}</div>"


def _timeline(people: list[Person], colours: dict[str, str]) -> str:
    if not people:
        return "<p>Nobody yet.</p>"
    start = min(person.first_ns for person in people)
    end = max(person.last_ns for person in people)
    span = max(end - start, 1_000_000_000)
    height = _TOP + _ROW * len(people) + 8
    parts = [f"<svg viewBox='0 0 {_LEFT + _WIDTH + 10} {height}' role=img>"]

    def x(at_ns: int) -> float:
        return _LEFT + (at_ns - start) / span * _WIDTH

    for at_ns, text in _ticks(start, span):
        parts.append(
            f"<line class=grid x1='{x(at_ns):.1f}' x2='{x(at_ns):.1f}' y1='{_TOP - 8}' "
            f"y2='{height}'/><text class=soft x='{x(at_ns):.1f}' y='{_TOP - 14}' "
            f"text-anchor=middle>{text}</text>"
        )
    for row, person in enumerate(people):
        y = _TOP + row * _ROW
        if row % 2 == 0:
            parts.append(
                f"<rect class=row x=0 y='{y}' width='{_LEFT + _WIDTH + 10}' height='{_ROW}'/>"
            )
        parts.append(f"<text x=6 y='{y + 17}'>{escape(person.identity_id[:SHORT])}</text>")
        lanes = {camera: at for at, camera in enumerate(person.cameras)}
        thick = max(3.0, min(9.0, (_ROW - 8) / len(lanes)))
        for visit in person.visits:
            left = x(visit.first_ns)
            width = max(2.5, x(visit.last_ns) - left)
            parts.append(
                f"<rect x='{left:.1f}' y='{y + 4 + lanes[visit.camera] * thick:.1f}' "
                f"width='{width:.1f}' height='{thick - 1:.1f}' rx=2 "
                f"fill='{colours[visit.camera]}'><title>{escape(visit.camera)}: "
                f"{_time(visit.first_ns)} to {_time(visit.last_ns)} UTC</title></rect>"
            )
    parts.append("</svg>")
    return "".join(parts)


_MINUTE, _HOUR = 60, 3600
_STEPS_S = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * one for one in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * one for one in (1, 2, 4, 6, 12, 24)),
)


def _ticks(start_ns: int, span_ns: int) -> list[tuple[int, str]]:
    """At most ten round instants."""
    step = next((one for one in _STEPS_S if span_ns / 1e9 / one <= 10), _STEPS_S[-1]) * 10**9
    if span_ns // step > 20:
        step *= -(-(span_ns // step) // 10)
    first = -(-start_ns // step) * step
    form = "%H:%M:%S" if step < 60 * 10**9 else "%H:%M" if span_ns < 2 * 86400 * 10**9 else "%d %b"
    return [
        (at, datetime.datetime.fromtimestamp(at / 1e9, datetime.UTC).strftime(form))
        for at in range(first, start_ns + span_ns + 1, step)
    ]


def _people(people: list[Person]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(person.identity_id[:SHORT])}</code></td>"
        f"<td>{escape(', '.join(person.cameras))}</td><td>{_time(person.first_ns)}</td>"
        f"<td>{_time(person.last_ns)}</td><td class=n>{len(person.visits)}</td></tr>"
        for person in people
    )
    return (
        "<div class=scroll><table><tr><th>who<th>cameras<th>first seen (UTC)<th>last seen (UTC)"
        f"<th class=n>tracklets</tr>{rows}</table></div>"
    )


def _boxes(edges: list[Edge], made_ns: int) -> str:
    if not edges:
        return "<p>No box has said hello yet.</p>"
    rows = []
    for edge in edges:
        heard = "never"
        if edge.last_heard_unix_nanos:
            heard = f"{max(0, made_ns - edge.last_heard_unix_nanos) / 1e9:.0f} s ago"
        clock = "not known"
        if edge.clock_uncertainty_ms:
            clock = f"{edge.clock_offset_ms:+.1f} ± {edge.clock_uncertainty_ms:.1f} ms"
        alarms = "<br>".join(escape(text) for text in edge.alarms)
        rows.append(
            f"<tr><td>{escape(edge.site)}/{escape(edge.edge_id)}<br>"
            f"<span style='color:var(--soft)'>{escape(edge.software)}</span></td>"
            f"<td>{'connected' if edge.connected else 'away'}, {heard}</td>"
            f"<td class=n>{edge.committed}</td><td class=n>{edge.backlog_sightings}"
            f"{f' ({edge.lag_s:.0f} s)' if edge.backlog_sightings else ''}</td>"
            f"<td class=n>{edge.skipped} / {edge.rejected} / {edge.lost_before_spool}</td>"
            f"<td>{clock}</td><td class=alarm>{alarms}</td></tr>"
        )
    return (
        "<div class=scroll><table><tr><th>box<th>heard<th class=n>committed<th class=n>waiting"
        "<th class=n>skipped / rejected / lost<th>clock against ours<th>look at</tr>"
        f"{''.join(rows)}</table></div>"
    )


def _time(unix_ns: int) -> str:
    moment = datetime.datetime.fromtimestamp(unix_ns / 1e9, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
