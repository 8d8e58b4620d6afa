"""Does a box without the training packages say which extra a command needs?"""

from __future__ import annotations

import pytest

from models import cli


def missing(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    def raised() -> None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(cli, "app", raised)


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing(monkeypatch, "torch.nn")

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 2
    assert "needs torch" in capsys.readouterr().err


def test_another_missing_module_is_our_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "edge.nothing")

    with pytest.raises(ModuleNotFoundError, match=r"edge\.nothing"):
        cli.main()
