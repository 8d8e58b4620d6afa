"""What a folder of maps asks of a matcher: what is taken into force, and what is refused."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from matcher.derived import MapInForce
from matcher.map_keeper import MapFolder, MapKeeper, MapMetrics
from matcher.schema import EntryKind
from reid.site_map import Gain, MapCard, Separation, Spread
from reid.site_maps import SiteMaps, folder_of
from tests.unit.reid.test_site_map import card, made

BETTER = Gain(value=0.02, low=0.01, high=0.03)
WORSE = Gain(value=-0.02, low=-0.03, high=-0.01)


def good_card(number: int = 1) -> MapCard:
    figures = Separation(
        positive_mean=0.5, positive_std=0.1, negative_mean=1.0, negative_std=0.1,
        overlap=0.1, error=0.08,
    )  # fmt: skip
    spread = Spread(mean=0.4, std=0.1)
    return card(made(number), number).model_copy(
        update={
            "held_back_before": figures,
            "held_back_after": figures.model_copy(update={"error": 0.06}),
            "pairs_gain": BETTER,
            "others_before": spread,
            "others_after": spread,
        }
    )


def publish(
    folder: Path, number: int = 1, of: str = "site", changed: Mapping[str, object] | None = None
) -> MapInForce:
    told = good_card(number).model_copy(update={"site": of, **(changed or {})})
    SiteMaps(folder_of(folder, of)).publish(number, made(number), told)
    return MapInForce(made(number), told)


def test_a_map_that_helps_is_to_be_taken_into_force_whole(tmp_path: Path) -> None:
    published = publish(tmp_path)

    changes, problems = MapFolder(tmp_path).changes({})

    assert problems == {}
    assert [(one.site, one.number, one.card) for one in changes] == [("site", 1, published.card)]
    assert len(changes[0].content) == published.card.bytes


def test_what_is_in_force_already_asks_for_nothing(tmp_path: Path) -> None:
    published = publish(tmp_path)

    assert MapFolder(tmp_path).changes({"site": published}) == ([], {})


def test_a_newer_map_replaces_and_no_map_takes_out(tmp_path: Path) -> None:
    old = publish(tmp_path)
    publish(tmp_path, 2)
    folder, maps = MapFolder(tmp_path), SiteMaps(folder_of(tmp_path, "site"))

    newer = folder.changes({"site": old})
    maps.use(0)
    none = folder.changes({"site": old})
    nothing = folder.changes({})

    assert [one.number for one in newer[0]] == [2]
    assert [(one.number, one.card) for one in none[0]] == [(0, None)]
    assert nothing == ([], {})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"site": "other"}, "fitted for site 'other'"),
        ({"others_after": None}, "does not say what thresholds become"),
        ({"held_back_before": None}, "has no figures of what was held back"),
        ({"pairs_gain": WORSE}, "does not help on what was held back"),
        ({"transit_gain": WORSE}, "does not help on what was held back"),
    ],
)
def test_a_map_that_is_not_for_use_is_refused_with_its_cure(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    in_force = publish(tmp_path)
    publish(tmp_path, 2, changed=changed)

    changes, problems = MapFolder(tmp_path).changes({"site": in_force})

    assert changes == []
    assert said in problems["site"] and "edge-models adapt" in problems["site"]


def test_a_torn_map_of_one_site_does_not_keep_anothers_out(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path, of="gate")
    (folder_of(tmp_path, "gate") / "1.npz").write_bytes(b"torn")

    changes, problems = MapFolder(tmp_path).changes({})

    assert [one.site for one in changes] == ["site"]
    assert list(problems) == ["gate"] and "1.npz" in problems["gate"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"two", b"", b"9" * 5000, None])
def test_a_pointer_that_holds_no_number_is_said_and_the_map_stays(
    content: bytes | None, tmp_path: Path
) -> None:
    published = publish(tmp_path)
    pointer = folder_of(tmp_path, "site") / "current"
    pointer.unlink()
    if content is None:
        pointer.mkdir()
    else:
        pointer.write_bytes(content)

    changes, problems = MapFolder(tmp_path).changes({"site": published})

    assert changes == []
    assert str(pointer) in problems["site"] and "delete it" in problems["site"]


def test_a_volumes_own_folder_is_of_no_site(tmp_path: Path) -> None:
    for name in ("lost+found", ".snapshots"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "current").write_text("rubbish")

    assert MapFolder(tmp_path).changes({}) == ([], {})


def test_maps_in_force_stay_where_their_folder_is_gone(tmp_path: Path) -> None:
    in_force = {"site": publish(tmp_path)}

    of_site = MapFolder(tmp_path / "site").changes(in_force)
    of_all = MapFolder(tmp_path / "nowhere").changes(in_force)

    assert of_site[0] == [] and "no folder of it any more" in of_site[1]["site"]
    assert of_all[0] == [] and "no such folder (--maps)" in of_all[1][""]


@pytest.mark.parametrize("call", ["is_dir", "iterdir"])
def test_maps_in_force_stay_where_their_folder_cannot_be_listed(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_force = {"site": publish(tmp_path)}

    def stale(self: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))

    monkeypatch.setattr(Path, call, stale)

    changes, problems = MapFolder(tmp_path).changes(in_force)

    assert changes == []
    assert problems[""] == (
        f"{tmp_path}: cannot be read (Stale file handle; --maps); maps in force stay"
    )


def test_without_a_folder_every_map_is_taken_out(tmp_path: Path) -> None:
    one = publish(tmp_path)

    changes, problems = MapFolder(None).changes({"yard": one, "gate": one})

    assert [(change.site, change.number) for change in changes] == [("gate", 0), ("yard", 0)]
    assert problems == {}


class Log:
    """Entries of a ledger, by position from 1."""

    def __init__(self) -> None:
        self.entries: list[tuple[EntryKind, str, Mapping[str, Any]]] = []

    async def run(self, work: Callable[[Log], int]) -> int:
        return work(self)

    def last_position(self) -> int:
        return len(self.entries)

    def note(
        self, kind: EntryKind, site: str, key: str, body: Mapping[str, Any], now_ns: int
    ) -> int:
        self.entries.append((kind, site, body))
        return len(self.entries)


class Now:
    def unix_nanos(self) -> int:
        return 7


def test_a_change_is_written_once_and_not_again_before_association_reached_it(
    tmp_path: Path,
) -> None:
    published = publish(tmp_path)
    log, in_force, reached = Log(), dict[str, MapInForce](), [0]
    keeper = MapKeeper(
        folder=tmp_path,
        ledger=log,  # type: ignore[arg-type]
        in_force=lambda: in_force,
        reached=lambda: reached[0],
        clock=Now(),  # type: ignore[arg-type]
    )

    async def story() -> list[int]:
        counts = []
        for step in ("asked", "not reached yet", "reached"):
            if step == "reached":
                reached[0], in_force["site"] = 1, published
            await keeper.look()
            counts.append(len(log.entries))
        return counts

    counts = asyncio.run(story())

    assert counts == [1, 1, 1]
    kind, site, body = log.entries[0]
    assert (kind, site, body["number"]) == (EntryKind.MAP, "site", 1)


def test_the_metric_names_every_map_in_force(tmp_path: Path) -> None:
    found = MapMetrics(lambda: {"site": publish(tmp_path)}).collect()

    samples = [sample for family in found for sample in family.samples]
    assert [sample.labels for sample in samples] == [
        {"site": "site", "space_id": "parent/site/1", "parent": "parent"}
    ]
