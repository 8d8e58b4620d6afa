"""Encryption of the spool's rows at rest: AES-256-GCM, with keys that can be rotated.

Promise: a sealed row can be read only with its key, and a changed byte of it is noticed. What is
sealed is the record (embeddings, boxes, times); counts, camera names and sizes stand in the clear.
Key file: one key a line, 64 hexadecimal digits (`openssl rand -hex 32`); `#` begins a comment. The
first key seals new rows, the others open older ones. To rotate: put a new key first and restart;
drop the old one when --spool-status no longer names it. Keys are read at the start alone.
Fails: `SpoolKeyError` at start; `ValueError` for a row that does not open.

    sealed record = key_id(8) nonce(12) ciphertext tag(16)      key_id: SHA-256 of the key, first 8

Nonces are random: 2^32 rows of one key stay far below what NIST SP 800-38D section 8.3 allows.
Any thread may call.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edge.spool_errors import SpoolKeyError

KEY_ID_BYTES = 8
NONCE_BYTES = 12
OVERHEAD_BYTES = KEY_ID_BYTES + NONCE_BYTES + 16


class Sealer:
    """Seals and opens rows; without keys it passes them through.

    Args:
        keys: 32 bytes each, the one for new rows first.
    """

    def __init__(self, keys: tuple[bytes, ...] = ()) -> None:
        self._ciphers = {hashlib.sha256(key).digest()[:KEY_ID_BYTES]: AESGCM(key) for key in keys}
        self._current = next(iter(self._ciphers), b"")

    @property
    def active(self) -> bool:
        """Whether new rows are sealed."""
        return bool(self._current)

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """Ids of the keys at hand, that for new rows first."""
        return tuple(self._ciphers)

    @property
    def current_id(self) -> bytes:
        """Id of the key for new rows; empty: they are not sealed."""
        return self._current

    def seal(self, record: bytes) -> bytes:
        """The record as it is stored."""
        if not self._current:
            return record
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, record, self._current)
        return self._current + nonce + sealed

    def open(self, stored: bytes) -> bytes:
        """A sealed record in the clear.

        Raises:
            ValueError: no key fits, or the bytes were changed.
        """
        key_id = bytes(stored[:KEY_ID_BYTES])
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise ValueError(f"sealed with key {key_id.hex()}, which is not in the key file")
        nonce = stored[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
        try:
            return cipher.decrypt(nonce, stored[KEY_ID_BYTES + NONCE_BYTES :], key_id)
        except (InvalidTag, ValueError) as error:
            raise ValueError("the sealed bytes were changed") from error


def load_sealer(path: Path | None) -> Sealer:
    """Read a key file; None: rows are stored in the clear.

    Raises:
        SpoolKeyError: unreadable, empty, or a line that is not a key.
    """
    if path is None:
        return Sealer()
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise SpoolKeyError(path, f"key file: {reason}") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
            # The line itself may be most of a key: it is not shown.
            raise SpoolKeyError(path, f"line {number} is not a key: 64 hexadecimal digits expected")
        keys.append(bytes.fromhex(text))
    if not keys:
        raise SpoolKeyError(path, "no key in it; make one with: openssl rand -hex 32")
    return Sealer(tuple(keys))
