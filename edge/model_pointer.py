"""Which models an operator chose: `current.toml` in the models folder.

Promise: written whole or not at all (renamed over the old), so a box that watches the folder sees
one choice or the other. Rolling back undoes the last choice and may be repeated to the first.

    last = "embedder"            # the kind chosen last: what a bare rollback undoes
    embedder = ["b", "a"]        # newest first; "default" stands for no choice
    detector = ["y"]

Fails: CardInvalid where the file is not ours. Threads: any; two writers at once: the last wins.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from reid import toml
from reid.card import MAX_CARD_BYTES, Kind
from reid.model_errors import CardInvalid

POINTER = "current.toml"
NO_CHOICE = "default"
HISTORY = 10  # older choices than these cannot be rolled back to

_CURE = "delete it, then choose again: edge-models use NAME"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What was chosen.

    Attributes:
        history: kind -> card names, newest first.
        last: the kind that was chosen last; None: nothing ever was.
    """

    history: dict[Kind, tuple[str, ...]] = field(default_factory=dict)
    last: Kind | None = None

    def chosen(self, kind: Kind) -> str | None:
        """The name in use; None: nothing was chosen."""
        names = self.history.get(kind, ())
        return names[0] if names and names[0] != NO_CHOICE else None

    def using(self, kind: Kind, name: str) -> Pointer:
        """With `name` chosen now."""
        names = self.history.get(kind, (NO_CHOICE,))
        if names[0] == name:
            return Pointer(self.history, kind)
        return Pointer({**self.history, kind: (name, *names)[:HISTORY]}, kind)

    def rolled_back(self, kind: Kind) -> Pointer | None:
        """With the last choice undone; None where there is nothing to go back to."""
        names = self.history.get(kind, ())
        return Pointer({**self.history, kind: names[1:]}, kind) if len(names) > 1 else None


def read_pointer(models_dir: Path) -> Pointer:
    """Read what was chosen; nothing where the file is absent.

    Raises:
        CardInvalid: the file cannot be read or is not ours.
    """
    path = models_dir / POINTER
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise CardInvalid(path, "is longer than any list of choices", _CURE)
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Pointer()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise CardInvalid(path, f"cannot be read ({error})", _CURE) from error
    kinds: tuple[Kind, ...] = get_args(Kind)
    history: dict[Kind, tuple[str, ...]] = {}
    for kind in kinds:
        names = fields.get(kind, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise CardInvalid(path, f"{kind} is not a list of names", _CURE)
        if names:
            history[kind] = tuple(names)
    last = next((kind for kind in kinds if kind == fields.get("last")), None)
    return Pointer(history, last)


def write_pointer(models_dir: Path, pointer: Pointer) -> None:
    """Write what was chosen.

    Raises:
        OSError: the folder cannot be written.
    """
    path = models_dir / POINTER
    fields: dict[str, object] = {"last": pointer.last} if pointer.last else {}
    fields.update({kind: list(names) for kind, names in pointer.history.items()})
    beside = path.with_name(f".{POINTER}.{os.getpid()}.part")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(toml.dumps(fields))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
