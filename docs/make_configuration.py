"""Writes docs/configuration.md from the box's configuration models: one truth, in edge/config.py.

python docs/make_configuration.py
"""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from edge.config import Config, GateConfig, SourceConfig

HEAD = """# Settings of the box

Written by `python docs/make_configuration.py` from `edge/config.py`; do not edit.

A TOML file (`edge-run --config FILE.toml`) holds sections as below; unknown keys are refused with
the nearest known one. Each key can also come from the environment: `EDGE_FPS` for a key at the top
level, `EDGE_TRACK__END_S` for one of a section. Flags beat environment beat file beat defaults;
`edge-run --print-config` shows the result and where each value comes from. On SIGHUP the box reads
the file again: cameras come, go and change, and `fps`, `track`, `shots`, `spool`, `uplink` and
certificates are taken over while the other cameras run on. The log names what waits for the next
start (`spool.key_file`, `spool.ballast_bytes` and `uplink.encoding` among it).

```toml
site = "harbour"
fps = 10

[[sources]]
name = "gate"
url = "rtsp://user:password@10.0.0.7/main"   # or --rtsp @FILE

[sources.gate]
masks = [[[0, 0], [0.3, 0], [0.3, 0.2]]]     # painted out before detection

[uplink]
matchers = ["center.example:7443"]
```
"""


def main() -> int:
    Path(__file__).with_name("configuration.md").write_text(text())
    return 0


def text() -> str:
    """The page."""
    parts = [HEAD, *_section("The top level", Config), *_section("[[sources]]", SourceConfig)]
    parts += _section("[sources.gate]", GateConfig)
    for name, field in Config.model_fields.items():
        model = _model(field.annotation)
        if model is not None:
            parts += _section(f"[{name}]", model)
            for inner, below in model.model_fields.items():
                nested = _model(below.annotation)
                if nested is not None:
                    parts += _section(f"[{name}.{inner}]", nested)
    return "\n".join(parts) + "\n"


def _model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _section(title: str, model: type[BaseModel]) -> list[str]:
    lines = [f"\n## {title}\n", (model.__doc__ or "").strip().splitlines()[0], ""]
    lines += ["| key | type | default | what it does |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if _model(field.annotation) is not None or name == "sources":
            continue
        default = "required" if field.default is PydanticUndefined else _shown(field.default)
        kind = _kind(field.annotation).replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {default} | {field.description or ''} |")
    return lines


def _shown(value: object) -> str:
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return ", ".join(f"`{entry}`" for entry in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


def _kind(annotation: object) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _kind(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return " or ".join(_kind(entry) for entry in inner)
    if origin is typing.Literal:
        return ", ".join(str(entry) for entry in typing.get_args(annotation))
    if origin is tuple:
        return "list"
    names = {"str": "text", "float": "number", "int": "whole number", "bool": "true, false"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, {"Path": "path", "AwareDatetime": "time"}.get(name, name))


if __name__ == "__main__":
    sys.exit(main())
