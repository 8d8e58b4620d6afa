"""Files that are written whole or not at all.

Promise: a reader sees the old content or the new one, also after a crash or on a full disk; an
error names the file. Any thread and process may call; of two writers one wins.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file beside `path` and give it its name.

    Raises:
        OSError: with the name of the file; what was there stays, and nothing else.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
