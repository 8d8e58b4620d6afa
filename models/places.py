"""Where `edge-models` finds the models folder, and how its commands end."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import typer

from reid.logs import mask
from reid.model_errors import ModelError

USAGE, REFUSED = 2, 3  # exit codes, as in the documentation of the commands
INTERRUPTED = 130  # exit code after Ctrl-C or SIGTERM, where the same call goes on
ENVIRONMENT = "EDGE_MODELS_DIR"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # as a card's


def models_folder(given: Path | None) -> Path | None:
    """The flag, else the environment, else none."""
    if given is not None:
        return given
    from_environment = os.environ.get(ENVIRONMENT)
    return Path(from_environment) if from_environment else None


def needed_folder(given: Path | None, *, existing: bool = False) -> Path:
    """The models folder, where a command cannot do without.

    Raises:
        typer.Exit: 2, none is known, or it does not exist although it must.
    """
    folder = existing_folder(given) if existing else models_folder(given)
    if folder is None:
        say(f"no models folder: say --models-dir DIR or set {ENVIRONMENT}")
        raise typer.Exit(USAGE)
    return folder


def existing_folder(given: Path | None) -> Path | None:
    """The models folder, or none where none is known.

    Raises:
        typer.Exit: 2, it does not exist; a list of nothing would look like an empty one.
    """
    folder = models_folder(given)
    if folder is not None and not folder.is_dir():
        named = "--models-dir" if given is not None else ENVIRONMENT
        say(f"there is no folder {folder}; check {named}, or make it: edge-models pull does")
        raise typer.Exit(USAGE)
    return folder


def say(text: str) -> None:
    """One message to a person, on stderr, without credentials."""
    print(f"edge-models: {mask(text)}", file=sys.stderr)


@contextmanager
def refusals(*also: type[Exception]) -> Iterator[None]:
    """Turn a model's refusal into its message and exit code 3, a folder's into 2."""
    caught: tuple[type[Exception], ...] = (ModelError, *also)
    try:
        yield
    except caught as error:
        say(str(error))
        raise typer.Exit(REFUSED) from error
    except OSError as error:
        say(f"{error.filename or 'the folder'}: {error.strerror or error}; {cure_of(error)}")
        raise typer.Exit(USAGE) from error


def onnx_target(out: Path) -> None:
    """Refuse an output that no box would find under its name, and make its folder.

    Raises:
        typer.BadParameter: no .onnx file (its card, NAME.toml, lies beside it), a name that a card
            cannot say, or a folder that cannot be made.
        typer.Exit: 3, NAME.toml is there and is no card.
    """
    if out.suffix != ".onnx" or _NAME.fullmatch(out.stem) is None or out.is_dir():
        raise typer.BadParameter(
            f"{out}: give NAME.onnx, NAME of letters, digits, '.', '_' and '-'", param_hint="OUT"
        )
    from models.describe import refuse_other_toml  # runtimes; not every command needs them

    make_parent(out)
    with refusals():
        refuse_other_toml(out)


def make_parent(out: Path) -> None:
    """Make the folder of an output.

    Raises:
        typer.BadParameter: it cannot be made.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        text = f"the folder {out.parent} cannot be made: {error.strerror}"
        raise typer.BadParameter(text, param_hint="OUT") from error


def cure_of(error: OSError) -> str:
    """What a person does about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room there"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "check its rights"
    return "check the path"


def refuse_options(whose: str, given: Mapping[str, object]) -> None:
    """Refuse flags that this kind of model has no use for; falsy values were not given.

    Raises:
        typer.BadParameter: the first that was given.
    """
    for flag, value in given.items():
        if value:
            raise typer.BadParameter(f"is for {whose} only", param_hint=flag)


def wide_enough() -> int | None:
    """Width for tables: the terminal's; a pipe has none, and wrapping there helps nobody."""
    return None if sys.stdout.isatty() else 200
