"""Flags, environment, file and defaults, joined into one MatcherConfig.

Promise: flags beat environment (`EDGE_MATCH_...`) beat file beat defaults. An unknown key names the
file, its line and the nearest known key; a bad value names where it stands.

Environment: `EDGE_MATCH_LISTEN` (comma separated), `EDGE_MATCH_LIMITS__SIGHTINGS_PER_S` (section,
two underscores, key), upper case.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from matcher.config import MatcherConfig

ENV_PREFIX = "EDGE_MATCH_"


class SettingsError(Exception):
    """The configuration cannot be used: exit code 2. The text says where and what to do."""


def load(
    *, file: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str]
) -> MatcherConfig:
    """Join the four layers.

    Args:
        file: a TOML file; None: none.
        flags: dotted key -> value, None where not given.
    Raises:
        SettingsError: as its text says.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        _merge(values, _read(file), origins, str(file))
    for name, text in environment.items():
        if name.startswith(ENV_PREFIX):
            path = name.removeprefix(ENV_PREFIX).lower().split("__")
            if path[-1]:
                _merge(values, _nested(path, _typed(path, text)), origins, name)
    for dotted, value in flags.items():
        if value is not None:
            flag = "--" + dotted.rpartition(".")[2].replace("_", "-")
            _merge(values, _nested(dotted.split("."), value), origins, flag)
    try:
        return MatcherConfig.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins, file)) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{file}: cannot be read ({error.strerror}); check the path given to --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not TOML: {error}; mend that place") from error


def _merge(
    into: dict[str, Any],
    more: Mapping[str, Any],
    origins: dict[str, str],
    origin: str,
    path: str = "",
) -> None:
    for key, value in more.items():
        dotted = f"{path}{key}"
        if isinstance(value, Mapping) and isinstance(into.get(key, {}), dict):
            _merge(into.setdefault(key, {}), value, origins, origin, dotted + ".")
        else:
            into[key] = value
        origins[dotted] = origin


def _nested(path: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def _typed(path: list[str], text: str) -> Any:
    """Text of the environment as pydantic wants it; lists and tables are JSON or commas."""
    if path == ["listen"]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _explain(error: ValidationError, origins: Mapping[str, str], file: Path | None) -> str:
    lines = []
    for item in error.errors():
        path = [str(part) for part in item["loc"]]
        dotted = ".".join(path)
        origin = _origin(path, origins)
        where = origin
        if file is not None and origin == str(file):
            line = _line_of(file, path[-1])
            where = f"{file}:{line}" if line else str(file)
        if item["type"] == "extra_forbidden":
            known = _known(path[:-1])
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            lines.append(f"{where}: unknown key {dotted!r}{hint}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            found = item.get("input")
            shown = f" (found {found!r})" if not isinstance(found, dict) else ""
            lines.append(f"{where}: {dotted or 'configuration'}: {message}{shown}")
    return "\n".join(lines)


def _origin(path: list[str], origins: Mapping[str, str]) -> str:
    for end in range(len(path), 0, -1):
        found = origins.get(".".join(path[:end]))
        if found is not None:
            return found
    return "configuration"


def _line_of(file: Path, key: str) -> int:
    pattern = re.compile(rf"^\s*(\[.*\b)?[\"']?{re.escape(key)}[\"']?\s*[=\].]")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if pattern.match(line):
            return number
    return 0


def _known(path: list[str]) -> list[str]:
    model: Any = MatcherConfig
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return []
        model = field.annotation
        if typing.get_origin(model) is not None or not issubclass(model, BaseModel):
            return []
    return sorted(model.model_fields)
