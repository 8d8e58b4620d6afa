"""kill -9 of the real `edge-run`: what its spool had committed arrives, once, after a restart."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.faults.oracle import Ledger, SpoolState
from tests.support.processes import Box, MatcherProcess, free_port, run_box
from tests.support.standins import write_film, write_models
from tests.support.waiting import eventually


def rows_of(spool: Path) -> int:
    """How many rows a spool has, beside its box; 0 while there is none."""
    if not spool.exists():
        return 0
    db = sqlite3.connect(f"{spool.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM sighting").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # its tables are being made
    finally:
        db.close()


def test_sightings_of_a_killed_edge_run_arrive_once_after_its_restart(tmp_path: Path) -> None:
    models = write_models(tmp_path / "models")
    film = write_film(tmp_path / "film.mp4")
    address = f"127.0.0.1:{free_port()}"
    data_dir = tmp_path / "box"
    arguments = ("--source", f"hall={film}", "--matcher", address)
    with Box(data_dir, models, *arguments) as box:
        eventually(lambda: rows_of(data_dir / "spool.sqlite") >= 2, within_s=60, state=box.text)
        box.kill()
    before = SpoolState.read(data_dir / "spool.sqlite").waiting

    with MatcherProcess(tmp_path / "ledger", listen=address):
        done = run_box(data_dir, models, *arguments)

    ledger = Ledger.read(tmp_path / "ledger" / "ledger.db")
    assert done.code == 0, done.stderr
    assert len(before) >= 2
    assert before <= set(ledger.rows)
    assert max(ledger.contents.values()) == 1
    assert len(ledger.rows) == len(before) + done.summary["sightings"]["committed"]
