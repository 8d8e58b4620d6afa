"""Checks that the box and the matcher depend on permissively licensed packages only.

Walks the requirements of the distribution and its extra `matcher` in this environment, reads each
package's own licence statement, and exits 1 naming what is not permissive or not stated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.markers import default_environment
from packaging.requirements import Requirement

PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|0BSD|Zlib|Unlicense|MPL-2\.0|"
    r"Mozilla Public License 2\.0|HPND|Historical Permission)\b",
    re.I,
)
FORBIDDEN = re.compile(r"\b(AGPL|GPL(?!.*exception)|LGPL|Affero|SSPL|BUSL|Commons Clause)", re.I)
# Named in NOTICE: av's own code is BSD, its wheel links GPL codecs.
EXCEPTIONS = {"av"}


def dependencies(name: str, extras: frozenset[str], seen: set[str]) -> Iterator[str]:
    """Every installed distribution that `name` needs, itself left out."""
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = [{**default_environment(), "extra": extra} for extra in (extras or {""})]
        if requirement.marker and not any(requirement.marker.evaluate(env) for env in wanted):
            continue
        if requirement.name.lower() in seen:
            continue
        seen.add(requirement.name.lower())
        yield requirement.name
        yield from dependencies(
            requirement.name, frozenset(requirement.extras) or frozenset(), seen
        )


def statement(name: str) -> str:
    """What a distribution says of its licence: expression, classifiers, or the first line."""
    about = metadata.metadata(name)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    said = about.get("License-Expression") or "; ".join(classifiers) or about.get("License") or ""
    return said.strip().splitlines()[0][:100] if said.strip() else ""


def main() -> int:
    bad = []
    names = sorted(dependencies("edge-reid", frozenset({"", "matcher"}), set()), key=str.lower)
    for name in names:
        said = statement(name)
        if name in EXCEPTIONS:
            continue
        if not PERMISSIVE.search(said) or FORBIDDEN.search(said):
            bad.append(f"{name}: {said or 'states no licence'}")
    for line in bad:
        print(f"licence not permissive: {line}", file=sys.stderr)
    print(f"{len(names)} dependencies of box and matcher, {len(bad)} not permissive")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
