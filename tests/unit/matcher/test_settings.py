"""Flags beat environment beat file beat defaults; what is wrong is named with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from matcher.settings import SettingsError, load


def test_flags_beat_environment_beat_file_beat_defaults(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(
        'listen = ["127.0.0.1:1"]\nshutdown_s = 3\n[limits]\nsightings_per_s = 100\n'
        "[association.thresholds]\n'space/1' = 0.7\n"
    )
    environment = {
        "EDGE_MATCH_SHUTDOWN_S": "4",
        "EDGE_MATCH_LIMITS__SIGHTINGS_PER_S": "200",
        "EDGE_MATCH_LISTEN": "127.0.0.1:2, 127.0.0.1:3",
    }

    config = load(
        file=file,
        environment=environment,
        flags={"limits.sightings_per_s": 300.0, "data_dir": tmp_path, "metrics": None},
    )

    assert config.listen == ("127.0.0.1:2", "127.0.0.1:3")
    assert config.shutdown_s == 4
    assert config.limits.sightings_per_s == 300
    assert config.association.thresholds == {"space/1": 0.7}
    assert config.metrics == "127.0.0.1:9465"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "a = 1\n[limits]\nsighting_per_s = 5\n",
            ["m.toml:3", "limits.sighting_per_s", "'sightings_per_s'"],
        ),
        ("\nshutdwn_s = 5\n", ["m.toml:2", "shutdwn_s", "'shutdown_s'"]),
        ("[limits]\nsightings_per_s = 5\n", ["limits", "below 16"]),
        ("[tls]\nca = 'x'\n", ["tls", "only ca is"]),
        ("shutdown_s = -1\n", ["m.toml:1", "shutdown_s", "-1"]),
        ("[retention]\nledger_s = inf\n", ["m.toml:2", "ledger_s", "less than or equal"]),
        ("[retention]\nledger_s = 1e12\n", ["m.toml:2", "ledger_s", "less than or equal"]),
        ("[association]\nenabled = false\n", ["m.toml:2", "enabled"]),
        ("listen = [\n", ["m.toml", "not TOML"]),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)

    with pytest.raises(SettingsError) as caught:
        load(file=file, environment={}, flags={})

    for part in parts:
        assert part in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--config"):
        load(file=tmp_path / "none.toml", environment={}, flags={})


def test_a_bad_flag_is_named() -> None:
    with pytest.raises(SettingsError, match="--shutdown-s"):
        load(file=None, environment={}, flags={"shutdown_s": 0})
