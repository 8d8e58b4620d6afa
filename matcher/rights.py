"""What a caller may do: read from its certificate; plain loopback may do everything.

Promise: a call without the right ends with PERMISSION_DENIED and says which certificate gives it.
"""

from __future__ import annotations

from typing import Any

import grpc

from matcher.views import Scope
from reid.peer import LOCAL_PEER, Peer, peer_from_context


async def require_query(context: grpc.aio.ServicerContext[Any, Any], site: str) -> Scope:
    """The sites that the caller may read; `site` is the one it asks for, "" for all it may."""
    peer = caller(context)
    if peer.query_sites is None:
        return Scope()
    if not peer.query_sites or (site and site not in peer.query_sites):
        what = f"site {site!r}" if peer.query_sites else "anything"
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"certificate {peer.name!r} may not read {what}; edge-match certs query makes one",
        )
    return Scope(peer.query_sites)


async def require_admin(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """The caller, who may change and delete."""
    peer = caller(context)
    if not peer.admin:
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"certificate {peer.name!r} is not an admin's; edge-match certs admin makes one",
        )
    return peer


def caller(context: grpc.aio.ServicerContext[Any, Any]) -> Peer:
    """Who calls."""
    return peer_from_context(context.auth_context()) or LOCAL_PEER
