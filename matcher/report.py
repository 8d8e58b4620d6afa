"""Who was seen where and when: as rows, as a table, as JSON. `matcher.page` makes the HTML page.

Promise: reads a `Source` and nothing else; identities are pseudonyms and shown as such.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from matcher.client import Source
from reid.v1.query_pb2 import SightingFilter, TrackletState, TrackletSummary

SHORT = 8  # characters of an identity shown to people; the whole id works everywhere


@dataclass(frozen=True, slots=True)
class Visit:
    """One tracklet of a person.

    Attributes:
        first_ns, last_ns: UTC, nanoseconds since 1970, by the server's clock where the box's is
            known.
    """

    tracklet_id: str
    camera: str
    first_ns: int
    last_ns: int
    state: str


@dataclass(frozen=True, slots=True)
class Person:
    """One identity.

    Attributes:
        visits: in order of time.
    """

    identity_id: str
    site: str
    first_ns: int
    last_ns: int
    visits: tuple[Visit, ...]

    @property
    def cameras(self) -> list[str]:
        """Cameras in order of first appearance."""
        return list(dict.fromkeys(visit.camera for visit in self.visits))


@dataclass(frozen=True, slots=True)
class Who:
    """The answer.

    Attributes:
        people: last seen first.
        unassigned: tracklets without identity (no embedding, or implausible times).
    """

    people: tuple[Person, ...]
    unassigned: tuple[Visit, ...]


def who(source: Source, wanted: SightingFilter | None = None) -> Who:
    """Ask who was seen where and when.

    Args:
        wanted: site, cameras and time; None: everything that is kept.
    """
    wanted = wanted or SightingFilter()
    people = [
        Person(
            one.identity_id,
            one.site,
            one.first_seen_unix_nanos,
            one.last_seen_unix_nanos,
            tuple(_visit(tracklet) for tracklet in one.tracklets),
        )
        for one in source.identities(wanted)
    ]
    unassigned = [_visit(one) for one in source.tracklets(wanted) if not one.identity_id]
    return Who(tuple(people), tuple(unassigned))


def table(found: Who, *, tracklets: bool = False) -> Table:
    """As a table for a terminal; `title` goes above it.

    Args:
        tracklets: one row per tracklet instead of one per identity and camera.
    """
    result = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading, justify in (
        ("who", "left"),
        ("camera", "left"),
        ("first seen", "left"),
        ("last seen", "left"),
        ("in view", "right"),
        ("tracklets", "right"),
    ):
        result.add_column(heading, justify=justify)  # type: ignore[arg-type]
    days = {_day(person.first_ns) for person in found.people} | {
        _day(person.last_ns) for person in found.people
    }
    form = "%H:%M:%S" if len(days) <= 1 else "%Y-%m-%d %H:%M:%S"
    for person in found.people:
        name: Text | str = Text(person.identity_id[:SHORT], style="bold")
        for camera, visits in _rows(person, tracklets):
            seconds = sum(max(0, one.last_ns - one.first_ns) for one in visits) / 1e9
            result.add_row(
                name,
                camera,
                _time(min(one.first_ns for one in visits), form),
                _time(max(one.last_ns for one in visits), form),
                f"{seconds:.1f} s",
                str(len(visits)),
            )
            name = ""
    return result


def title(found: Who) -> str:
    """One line: how many were seen, where, when."""
    cameras = {visit.camera for person in found.people for visit in person.visits}
    crossing = sum(1 for person in found.people if len(person.cameras) > 1)
    text = f"{_count(len(found.people), 'person', 'people')} in {_count(len(cameras), 'camera')}"
    if len(cameras) > 1:
        text += f", {crossing} of them in more than one"
    if found.people:
        first = min(person.first_ns for person in found.people)
        last = max(person.last_ns for person in found.people)
        text += f", {_time(first, '%Y-%m-%d %H:%M:%S')} to {_time(last, '%H:%M:%S')} UTC"
    if found.unassigned:
        text += f"; {_count(len(found.unassigned), 'tracklet')} without an embedding"
    return text


def as_json(found: Who) -> dict[str, Any]:
    """As one object; times in ISO 8601 and nanoseconds."""
    return {
        "people": [
            {
                "identity_id": person.identity_id,
                "site": person.site,
                "first_seen": iso(person.first_ns),
                "last_seen": iso(person.last_ns),
                "first_seen_unix_nanos": person.first_ns,
                "last_seen_unix_nanos": person.last_ns,
                "cameras": person.cameras,
                "tracklets": [_visit_json(visit) for visit in person.visits],
            }
            for person in found.people
        ],
        "unassigned": [_visit_json(visit) for visit in found.unassigned],
    }


def iso(unix_ns: int) -> str:
    """ISO 8601 in UTC with milliseconds."""
    moment = datetime.datetime.fromtimestamp(unix_ns / 1e9, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _visit(tracklet: TrackletSummary) -> Visit:
    return Visit(
        tracklet.tracklet_id,
        tracklet.camera,
        tracklet.first_seen_unix_nanos,
        tracklet.last_seen_unix_nanos,
        TrackletState.Name(tracklet.state).removeprefix("TRACKLET_STATE_").lower(),
    )


def _visit_json(visit: Visit) -> dict[str, Any]:
    return {
        "tracklet_id": visit.tracklet_id,
        "camera": visit.camera,
        "first_seen": iso(visit.first_ns),
        "last_seen": iso(visit.last_ns),
        "state": visit.state,
    }


def _rows(person: Person, tracklets: bool) -> Iterable[tuple[str, list[Visit]]]:
    if tracklets:
        return [(visit.camera, [visit]) for visit in person.visits]
    by_camera: dict[str, list[Visit]] = {}
    for visit in person.visits:
        by_camera.setdefault(visit.camera, []).append(visit)
    return by_camera.items()


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _day(unix_ns: int) -> int:
    return unix_ns // 86_400_000_000_000


def _time(unix_ns: int, form: str) -> str:
    return datetime.datetime.fromtimestamp(unix_ns / 1e9, datetime.UTC).strftime(form)
