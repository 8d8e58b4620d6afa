"""What a certificate says about its owner: which box it is, or what it may read and change.

Promise: only names that are ours count; what is not said is not allowed. Any thread may call.

It stands in the certificate's URI names (subject alternative name):

    edge-reid://box/SITE/EDGE_ID    a box; site and edge_id percent-encoded
    edge-reid://query               may read; edge-reid://query/SITE only that site
    edge-reid://admin               may merge, split, forget, set retention
    edge-reid://server              a matcher
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

SCHEME = "edge-reid"


@dataclass(frozen=True, slots=True)
class Peer:
    """What a certificate allows.

    Attributes:
        name: how people know it.
        edge_id, site: of a box; empty otherwise.
        query_sites: sites that may be read; None: all; empty: none.
        admin: may change and delete.
    """

    name: str = ""
    edge_id: str = ""
    site: str = ""
    query_sites: frozenset[str] | None = frozenset()
    admin: bool = False

    @property
    def is_box(self) -> bool:
        """Whether it is a box's certificate."""
        return bool(self.edge_id)

    def may_query(self, site: str = "") -> bool:
        """Whether it may read this site ("" asks for all sites)."""
        return self.query_sites is None or (bool(site) and site in self.query_sites)


LOCAL_PEER = Peer(name="local", query_sites=None, admin=True)
"""Who talks over plain loopback (or with --insecure): everything is allowed."""


def box_uri(site: str, edge_id: str) -> str:
    """The name of a box's certificate."""
    return f"{SCHEME}://box/{quote(site, safe='')}/{quote(edge_id, safe='')}"


def peer_from_uris(uris: Sequence[str], name: str = "") -> Peer:
    """Read the URI names of a certificate; names of other schemes are ignored."""
    edge_id = site = ""
    sites: set[str] = set()
    everything = admin = False
    for uri in uris:
        parts = urlsplit(uri)
        if parts.scheme != SCHEME:
            continue
        path = [unquote(part) for part in parts.path.split("/") if part]
        if parts.netloc == "box" and len(path) == 2:
            site, edge_id = path
        elif parts.netloc == "query":
            sites.update(path[:1])
            everything = everything or not path
        elif parts.netloc == "admin":
            admin = True
    return Peer(
        name=name or edge_id,
        edge_id=edge_id,
        site=site,
        query_sites=None if everything else frozenset(sites),
        admin=admin,
    )


def peer_from_context(auth_context: Mapping[str, Iterable[bytes]]) -> Peer | None:
    """Who is at the other end of a gRPC call; None where the connection is plain."""
    if list(auth_context.get("transport_security_type", ())) != [b"ssl"]:
        return None
    names = list(auth_context.get("x509_common_name", ()))
    uris = [uri.decode("utf-8", "replace") for uri in auth_context.get("peer_uri", ())]
    return peer_from_uris(uris, names[0].decode("utf-8", "replace") if names else "")
