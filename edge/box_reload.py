"""What a reload (SIGHUP) takes over of a new configuration, and what waits for the next start.

Promise: decisions only; no part of the box is touched. Any thread may call.
"""

from __future__ import annotations

from edge.config import Config

_TAKEN = ("sources", "fps", "track", "shots", "spool", "shutdown_s", "uplink")
# Inside what is taken: a new file, or what was made at the start, is needed for these.
_LATER = {"spool": ("key_file", "ballast_bytes"), "uplink": ("encoding",)}


def reloaded(old: Config, new: Config, *, matchers: tuple[str, ...] | None) -> Config:
    """The configuration to go on with.

    Args:
        matchers: stays, where the matcher is our own child; None: as the new one says.
    """
    update = {name: getattr(new, name) for name in _TAKEN}
    if matchers is not None:
        update["uplink"] = new.uplink.model_copy(update={"matchers": matchers})
    return old.model_copy(update=update)


def waiting_for_the_start(old: Config, new: Config) -> list[str]:
    """Settings that differ and are not taken over, as dotted keys."""
    names = [
        name
        for name in Config.model_fields
        if name not in _TAKEN and getattr(old, name) != getattr(new, name)
    ]
    for section, keys in _LATER.items():
        before, after = getattr(old, section), getattr(new, section)
        names += [f"{section}.{key}" for key in keys if getattr(before, key) != getattr(after, key)]
    return names
