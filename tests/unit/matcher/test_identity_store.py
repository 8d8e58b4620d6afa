"""What reading and deleting identities costs, in steps of SQLite's machine: no clock sways it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from matcher.associate.identities import IdentityStore

STEPS = 100  # steps of SQLite's machine between two calls of the counter


def filled(path: Path, count: int) -> IdentityStore:
    """A store with so many identities of one tracklet each."""
    store = IdentityStore(path, generation="g")
    db = store._db
    db.execute("BEGIN")
    for number in range(1, count + 1):
        who = f"{number:032x}"
        db.execute("INSERT INTO identities VALUES(?, 's', ?, ?, ?)", (who, number, number, number))
        db.execute(
            "INSERT INTO tracklets VALUES(?, ?, 's', 'e', 'c', 1, 1, x'', x'', ?, ?, 0, 1, '[]', "
            "'{}', ?, 1.0, 1.0, 0, ?, ?, ?, 0)",
            (number, f"t{number}", number, number, who, number, number, number),
        )
    db.execute("COMMIT")
    return store


def steps_of(store: IdentityStore, work: Callable[[IdentityStore], object]) -> int:
    counted = 0

    def one_more() -> int:
        nonlocal counted
        counted += 1
        return 0

    store._db.set_progress_handler(one_more, STEPS)
    work(store)
    store._db.set_progress_handler(None, 0)
    return counted


def load(store: IdentityStore) -> None:
    found = store.load_identities({}, 0)
    assert sum(len(identity.members) for identity in found) == len(found)
    assert len(list(store.load_tracklets(found, 0))) == len(found)


def delete_old(store: IdentityStore) -> None:
    assert store.delete_older("s", 10**9) > 0


@pytest.mark.parametrize("work", [load, delete_old])
def test_four_times_the_identities_cost_about_four_times_the_steps(
    tmp_path: Path, work: Callable[[IdentityStore], object]
) -> None:
    """Not sixteen: a scan of all tracklets for each identity made a start take minutes."""
    few, many = filled(tmp_path / "few.db", 300), filled(tmp_path / "many.db", 1200)

    ratio = steps_of(many, work) / steps_of(few, work)

    assert ratio < 6
    few.close()
    many.close()
