"""What can be wrong with a data set; every message names the file and what was expected.

DataError
├── LayoutError      a part (folder, list) of the set is not where its layout puts it
├── FileNameError    a file's name does not say person and camera as the layout promises
├── NumberError      a person's or camera's number is larger than a pack can hold
├── ListError        a line of a set's own list is not as the layout promises
├── UnreadableImages some images cannot be read or decoded; all of them are named
└── NoAnswers        no query has its person in the gallery under another camera
"""

from __future__ import annotations

from collections.abc import Sequence


class DataError(Exception):
    """A data set cannot be used as asked."""


class LayoutError(DataError):
    """A part of the set is missing.

    Attributes: set_name, where, expected.
    """

    def __init__(self, set_name: str, where: str, expected: str) -> None:
        self.set_name, self.where, self.expected = set_name, where, expected
        super().__init__(
            f"{set_name} at {where}: expected {expected}; "
            "give the folder or tar that holds it, or another --protocol"
        )


class FileNameError(DataError):
    """A file's name does not follow the layout.

    Attributes: set_name, file, expected.
    """

    def __init__(self, set_name: str, file: str, expected: str) -> None:
        self.set_name, self.file, self.expected = set_name, file, expected
        super().__init__(
            f"{set_name}: file {file!r} is not named like {expected}; rename or remove it"
        )


class NumberError(DataError):
    """A person's or camera's number that no pack can hold.

    Attributes: set_name, file, what ("person" or "camera"), number (as it stands there), low, high.
    """

    def __init__(
        self, set_name: str, file: str, what: str, number: str, low: int, high: int
    ) -> None:
        self.set_name, self.file, self.what, self.number = set_name, file, what, number
        self.low, self.high = low, high
        super().__init__(
            f"{set_name}: {file!r} says {what} {number}, expected {low} to {high}; number it anew"
        )


class ListError(DataError):
    """A line of a set's own list.

    Attributes: set_name, list_name, number (of the line, from 1), line, expected.
    """

    def __init__(
        self, set_name: str, list_name: str, number: int, line: str, expected: str
    ) -> None:
        self.set_name, self.list_name, self.number = set_name, list_name, number
        self.line, self.expected = line, expected
        super().__init__(
            f"{set_name}: line {number} of {list_name} is {line!r}, not like {expected!r}; "
            "mend or remove it"
        )


class UnreadableImages(DataError):
    """Images that cannot be read or decoded.

    Attributes: set_name, files (all of them), total (images of the set).
    """

    SHOWN = 50  # a longer message is read by nobody; `files` has them all

    def __init__(self, set_name: str, files: Sequence[str], total: int) -> None:
        self.set_name, self.files, self.total = set_name, tuple(files), total
        shown = ", ".join(files[: self.SHOWN])
        more = f" and {len(files) - self.SHOWN} more" if len(files) > self.SHOWN else ""
        super().__init__(
            f"{set_name}: {len(files)} of {total} images cannot be read or decoded: {shown}{more}; "
            "replace or remove them"
        )


class NoAnswers(DataError):
    """Nothing can be judged: every query's person is missing, or only under the same camera.

    Attributes: queries, how many were asked.
    """

    def __init__(self, queries: int) -> None:
        self.queries = queries
        super().__init__(
            f"no query (of {queries}) has its person in the gallery under another camera; "
            "give a gallery that shows the queries' people from other cameras"
        )
