"""Which certificates a box uses, and `--check` with it: its own, else the image's."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import box_addresses
from edge.box_addresses import files_for
from edge.config import Config
from reid.tls import TlsFiles

MATCHER = "center.example:7443"


def certificates(folder: Path) -> TlsFiles:
    folder.mkdir()
    for name in ("ca", "cert", "key"):
        (folder / f"{name}.pem").touch()
    return TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "data").mkdir()
    return Config.model_validate(
        {"data_dir": tmp_path / "data", "uplink": {"matchers": [MATCHER, "127.0.0.1:7443"]}}
    )


def test_the_images_certificates_are_taken_where_the_data_folder_has_none(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_image = certificates(tmp_path / "image")
    monkeypatch.setattr(box_addresses, "_IMAGE_TLS_DIR", tmp_path / "image")

    before = files_for(config, MATCHER)
    own = certificates(config.data_dir / "tls")

    assert before == of_image
    assert files_for(config, MATCHER) == own


def test_loopback_is_plain_unless_files_are_named(config: Config) -> None:
    certificates(config.data_dir / "tls")

    assert files_for(config, "127.0.0.1:7443") is None
