"""Flags, environment, file and defaults, joined into one Config with the origin of each value.

Promise: flags beat environment (`EDGE_...`) beat file beat defaults. An unknown key names the file,
its line and the nearest known key; a bad value names where it stands. Nothing is opened here but
the configuration file.

Environment: `EDGE_SITE`, `EDGE_FPS` ... for what has a flag, `EDGE_TRACK__END_S` for any key of a
section (section, two underscores, key), upper case.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edge.config import Config, GateConfig, SourceConfig
from reid.logs import mask, mask_address

ENV_PREFIX = "EDGE_"
MATCHER_PREFIX = "MATCH_"  # EDGE_MATCH_...: the matcher's, who may share an environment

# Environment names of what is not simply a key of Config at the top level.
FLAG_PATHS: dict[str, tuple[str, ...]] = {
    "MATCHER": ("uplink", "matchers"),
    "TLS_CA": ("uplink", "tls", "ca"),
    "TLS_CERT": ("uplink", "tls", "cert"),
    "TLS_KEY": ("uplink", "tls", "key"),
    "INSECURE": ("uplink", "tls", "insecure"),
    "ACCEPT_LEDGER": ("uplink", "accept_ledger"),
    "ID": ("edge_id",),
    "DETECTOR": ("detect", "model"),
    "EMBEDDER": ("embed", "model"),
    "SUMMARY": ("status", "summary"),
    "LOG": ("status", "log"),
    "METRICS": ("status", "metrics"),
    "PREVIEW": ("status", "preview"),
    "COLLECT": ("collect", "folder"),
    "COLLECT_KEEP": ("collect", "keep_hours"),
}
# Read by the command line itself (edge.cli), not keys of Config.
RESERVED_ENV = frozenset({"RTSP", "SOURCE", "CONFIG"})


class SettingsError(Exception):
    """The configuration cannot be used: exit code 2. The text says where and what to do."""


@dataclass(frozen=True)
class Settings:
    """The joined configuration.

    Attributes:
        config: what the box runs with.
        origins: dotted key -> where its value comes from; keys not listed have their default.
    """

    config: Config
    origins: dict[str, str]

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(dotted key, value, origin) of every setting, secrets masked."""
        for key, value in _flatten(self.config.model_dump(mode="json")):
            yield key, mask(json.dumps(_without_secrets(value))), self.origins.get(key, "default")


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """The XDG state folder of this program."""
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "edge-reid"


def default_cache_dir(environ: Mapping[str, str]) -> Path:
    """The XDG cache folder of this program."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "edge-reid"


def load(
    *,
    flags: Mapping[tuple[str, ...], tuple[Any, str]],
    environ: Mapping[str, str],
    file: Path | None,
) -> Settings:
    """Join the four layers.

    Args:
        flags: path of a key -> (value, the flag as typed); only those that were given.
        environ: the environment.
        file: a TOML file, or None.
    Raises:
        SettingsError: a file that cannot be read, an unknown key, a bad value.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    text = ""
    if file is not None:
        text, tree = _read_file(file)
        _refuse_unknown(tree, Config, (), file, text)
        values = tree
        for key, _ in _flatten(tree):
            origins[key] = _place(file, text, key)
    for path, value, name in _from_environment(environ):
        _put(values, path, value)
        _claim(origins, path, f"environment {name}")
    for path, (value, flag) in flags.items():
        _put(values, path, value)
        _claim(origins, path, flag)
        origins.update((key, flag) for key, _ in _flatten({".".join(path): value}))
    if "data_dir" not in values:
        values["data_dir"] = str(default_data_dir(environ))
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from error
    return Settings(config, origins)


def _read_file(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"configuration file {file}: cannot be read: {error}") from error
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"configuration file {file}: not valid TOML: {error}") from error


def _claim(origins: dict[str, str], path: tuple[str, ...], origin: str) -> None:
    """Set the origin of a key and drop those of what stood below it."""
    key = ".".join(path)
    for old in [name for name in origins if name == key or name.startswith((key + ".", key + "["))]:
        del origins[old]
    origins[key] = origin


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    at = values
    for name in path[:-1]:
        at = at.setdefault(name, {})
    at[path[-1]] = value


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    for name in sorted(environ):
        short = name.removeprefix(ENV_PREFIX)
        if short == name or short in RESERVED_ENV or short.startswith(MATCHER_PREFIX):
            continue
        path = FLAG_PATHS.get(short) or tuple(part.lower() for part in short.split("__"))
        field = _field(path)
        if field is None:
            known = [ENV_PREFIX + flag for flag in FLAG_PATHS]
            known += [ENV_PREFIX + "__".join(p).upper() for p in _paths(Config)]
            raise SettingsError(f"environment: unknown setting {name}{_nearest(name, known)}")
        if environ[name]:  # empty is unset, as make and compose files write it
            yield path, _typed(environ[name], field), name


def _typed(text: str, annotation: Any) -> Any:
    """A list is written with commas in the environment; pydantic reads the rest from text."""
    if typing.get_origin(annotation) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _field(path: tuple[str, ...]) -> Any:
    """The annotation of a leaf key of Config, or None where there is none."""
    model: type[BaseModel] | None = Config
    annotation: Any = None
    for name in path:
        if model is None or name not in model.model_fields:
            return None
        annotation = model.model_fields[name].annotation
        model = _model_of(annotation)
    return None if model is not None or annotation is None else annotation


def _paths(model: type[BaseModel], base: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is None:
            yield (*base, name)
        else:
            yield from _paths(inner, (*base, name))


def _refuse_unknown(
    tree: Mapping[str, Any], model: type[BaseModel], base: tuple[str, ...], file: Path, text: str
) -> None:
    for key, value in tree.items():
        path = (*base, key)
        if key not in model.model_fields:
            place = _place(file, text, ".".join(path))
            where = f"section [{'.'.join(base)}]" if base else "the top level"
            raise SettingsError(
                f"{place}: unknown key {key!r} in {where}{_nearest(key, list(model.model_fields))}"
            )
        inner = _model_of(model.model_fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(value, inner, path, file, text)
        elif key == "sources" and not base and isinstance(value, list):
            for i, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    _refuse_unknown(entry, SourceConfig, (f"sources[{i}]",), file, text)
                    gate = entry.get("gate")
                    if isinstance(gate, Mapping):
                        _refuse_unknown(gate, GateConfig, (f"sources[{i}].gate",), file, text)


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known)[:12])}"


def _without_secrets(value: Any) -> Any:
    """An address may hold spaces, by which one inside a text would end."""
    return mask_address(value) if isinstance(value, str) else value


def _flatten(tree: Mapping[str, Any], base: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{base}.{key}" if base else key
        if isinstance(value, Mapping):
            yield from _flatten(value, name)
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for i, entry in enumerate(value):
                yield from _flatten(entry, f"{name}[{i}]")
        else:
            yield name, value


_HEADER = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_\-\"'.]+)\s*=")


def _place(file: Path, text: str, key: str) -> str:
    """`file:line` of a dotted key, or the file alone where the line cannot be told."""
    section = ""
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header is not None:
            name = header.group(2).replace(" ", "")
            if header.group(1) == "[[":
                counts[name] = counts.get(name, -1) + 1
                section = f"{name}[{counts[name]}]"
            else:
                parent, dot, rest = name.partition(".")
                section = f"{parent}[{counts[parent]}]{dot}{rest}" if parent in counts else name
            if section == key or section.startswith(key + "."):
                return f"{file}:{number}"
            continue
        entry = _KEY.match(line)
        if entry is not None:
            name = entry.group(1).strip("\"'")
            if (f"{section}.{name}" if section else name) == key:
                return f"{file}:{number}"
    return str(file)


def _origin_below(key: str, origins: Mapping[str, str]) -> str:
    """Where a fault of a section as a whole comes from: its only origin, or a camera's first."""
    below = [origin for name, origin in origins.items() if name.startswith((f"{key}.", f"{key}["))]
    return below[0] if below and (key.endswith("]") or len(set(below)) == 1) else ""


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ""
        for part in problem["loc"]:
            key += f"[{part}]" if isinstance(part, int) else (f".{part}" if key else str(part))
        parent = re.sub(r"(\.[^.\[\]]+|\[\d+\])$", "", key)
        origin = origins.get(key) or origins.get(parent) or _origin_below(key, origins)
        found = problem.get("input")
        shown = (
            ""
            if isinstance(found, Mapping) or found is None
            else f", found {mask_address(str(found))!r}"
        )
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{origin + ': ' if origin else ''}{key or 'configuration'}: {message}{shown}")
    return "\n".join(lines)
