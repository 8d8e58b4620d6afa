"""QueryService: who was seen where, for people's tools and for programs.

Promise: reads only; each read runs in a small pool of threads with connections of their own, so a
long search delays neither ingest nor association. Followed streams (`ReadSightings`, `Watch`) are
woken by commits, and give every entry once, in order.
Full: reads beyond the pool wait. Threads: the event loop; reads in the pool.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np

from matcher.edges import EdgeBook, EdgeState
from matcher.log import LogReader
from matcher.rights import require_query
from matcher.signal import Signal
from matcher.views import Floats, Views
from reid.codec import EmbeddingError, decode
from reid.v1 import query_pb2, query_pb2_grpc
from reid.v1.sighting_pb2 import Key, Sighting, SightingRecord

T = TypeVar("T")
THREADS = 2
PAGE, MOST = 100, 1000
HITS = 20
READ = 200  # entries of one read of a followed stream
INTERRUPT_S = 0.2  # what a read may still take at the end before it is interrupted
LAST_POSITION = (1 << 63) - 1  # of SQLite
FOLLOW_S = 5.0  # a followed stream looks at least so often, in case a wake-up was missed


class ReadPool:
    """Threads for reads, each with its own connections."""

    def __init__(self, *, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="query")
        self._local = threading.local()
        self._lock = threading.Lock()  # guards _opened and _running
        self._opened: list[Views | LogReader] = []
        self._running: set[Future[Any]] = set()

    async def views(self, read: Callable[[Views], T]) -> T:
        """Run a read on identities.db."""
        return await self._run(lambda: read(self._mine("views", Views)))

    async def log(self, read: Callable[[LogReader], T]) -> T:
        """Run a read on the log."""
        return await self._run(lambda: read(self._mine("log", LogReader)))

    async def _run(self, read: Callable[[], T]) -> T:
        future = self._pool.submit(read)
        with self._lock:
            self._running.add(future)
        future.add_done_callback(self._ended)
        return await asyncio.wrap_future(future)

    def _ended(self, future: Future[Any]) -> None:
        with self._lock:
            self._running.discard(future)

    def _mine(self, name: str, kind: Any) -> Any:
        found = getattr(self._local, name, None)
        if found is None:
            found = kind(data_dir=self._data_dir)
            setattr(self._local, name, found)
            with self._lock:
                self._opened.append(found)
        return found

    def close(self) -> None:
        """End running reads and close the connections; may be called twice."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        while True:
            with self._lock:
                running, opened = set(self._running), list(self._opened)
            if not wait(running, timeout=INTERRUPT_S).not_done:
                break
            # Again and again: it does nothing between two statements of one read.
            for one in opened:
                one.interrupt()
        self._pool.shutdown(wait=True)
        with self._lock:
            for one in self._opened:
                one.close()
            self._opened.clear()


class QueryService(query_pb2_grpc.QueryServiceServicer):
    """The servicer. See proto/reid/v1/query.proto."""

    def __init__(
        self,
        *,
        pool: ReadPool,
        edges: EdgeBook,
        connected: Callable[[str, str], bool],
        committed: Signal,
        decided: Signal,
        stopping: asyncio.Event,
    ) -> None:
        """
        Args:
            connected: (site, edge_id) -> whether a stream is open.
            committed, decided: woken when the log and when the events have grown.
            stopping: set when followed streams must end.
        """
        self._pool = pool
        self._edges = edges
        self._connected = connected
        self._committed = committed
        self._decided = decided
        self._stopping = stopping

    async def SearchSightings(  # noqa: N802
        self, request: query_pb2.SearchSightingsRequest, context: Any
    ) -> query_pb2.SearchSightingsResponse:
        """See proto."""
        scope = await require_query(context, request.filter.site)
        limit = await _limit(context, request.limit, HITS)
        queries: dict[str, Floats] = {}
        origin: tuple[str, str] | None = None
        if request.WhichOneof("query") == "embedding":
            try:
                vector = decode(request.embedding)
            except EmbeddingError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"embedding: {error}")
            queries[request.embedding.space_id] = vector[None, :]
        elif request.tracklet_id:
            found = await self._pool.views(lambda views: views.vectors_of(request.tracklet_id))
            if found is None or (scope.sites is not None and found[0].site not in scope.sites):
                await context.abort(
                    grpc.StatusCode.NOT_FOUND, f"no tracklet {request.tracklet_id!r}"
                )
            else:
                queries = {space: np.asarray(one.shots) for space, one in found[1].items()}
                origin = (found[0].site, found[0].place)
        else:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "give an embedding or a tracklet_id"
            )
        hits = await self._pool.views(
            lambda views: views.nearest(
                queries,
                request.filter,
                scope,
                limit=limit,
                least=request.min_similarity,
                origin=origin,
            )
        )
        return query_pb2.SearchSightingsResponse(
            hits=[
                query_pb2.SearchHit(tracklet=one.summary(), similarity=similarity)
                for one, similarity in hits
            ]
        )

    async def ListSightings(  # noqa: N802
        self, request: query_pb2.ListSightingsRequest, context: Any
    ) -> query_pb2.ListSightingsResponse:
        """See proto."""
        scope = await require_query(context, request.filter.site)
        limit = await _limit(context, request.page_size, PAGE)
        after = await _page(context, request.page_token, int)
        rows = await self._pool.views(
            lambda views: views.tracklets(request.filter, scope, limit=limit, after=after)
        )
        token = f"{rows[-1].last_ns}:{rows[-1].number}" if len(rows) == limit else ""
        return query_pb2.ListSightingsResponse(
            tracklets=[one.summary() for one in rows], next_page_token=token
        )

    async def ListIdentities(  # noqa: N802
        self, request: query_pb2.ListIdentitiesRequest, context: Any
    ) -> query_pb2.ListIdentitiesResponse:
        """See proto."""
        scope = await require_query(context, request.filter.site)
        limit = await _limit(context, request.page_size, PAGE)
        after = await _page(context, request.page_token, str)
        rows = await self._pool.views(
            lambda views: views.identities(request.filter, scope, limit=limit, after=after)
        )
        token = ""
        if len(rows) == limit:
            token = f"{rows[-1].last_seen_unix_nanos}:{rows[-1].identity_id}"
        return query_pb2.ListIdentitiesResponse(identities=rows, next_page_token=token)

    async def GetIdentity(  # noqa: N802
        self, request: query_pb2.GetIdentityRequest, context: Any
    ) -> query_pb2.GetIdentityResponse:
        """See proto."""
        scope = await require_query(context, "")
        found = await self._pool.views(lambda views: views.identity(request.identity_id, scope))
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no identity {request.identity_id!r}")
        return query_pb2.GetIdentityResponse(identity=found)

    async def ReadSightings(  # noqa: N802
        self, request: query_pb2.ReadSightingsRequest, context: Any
    ) -> AsyncIterator[query_pb2.ReadSightingsResponse]:
        """See proto."""
        scope = await require_query(context, request.site)
        position = min(request.after_position, LAST_POSITION)
        seen = self._committed.count
        while not self._stopping.is_set():
            entries = await self._pool.log(
                lambda log, after=position: log.read(  # type: ignore[misc]
                    after, limit=READ, site=request.site, sightings_only=True
                )
            )
            for entry in entries:
                position = entry.position
                if scope.sites is not None and entry.site not in scope.sites:
                    continue
                yield query_pb2.ReadSightingsResponse(
                    position=entry.position,
                    record=SightingRecord(
                        key=Key(writer_id=entry.writer_id, seq=entry.seq),
                        content_hash=entry.content_hash,
                        sighting=Sighting.FromString(entry.body),
                    ),
                    committed_unix_nanos=entry.committed_ns,
                )
            if len(entries) < READ:
                if not request.follow:
                    return
                seen = await self._wait(self._committed, seen)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops; resume elsewhere")

    async def Watch(  # noqa: N802
        self, request: query_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[query_pb2.WatchResponse]:
        """See proto."""
        scope = await require_query(context, request.site)
        position = min(request.after_position, LAST_POSITION)
        if request.from_now:
            position = await self._pool.views(lambda views: views.last_event())
        await context.send_initial_metadata(())  # from here on nothing is missed: say so
        seen = self._decided.count
        while not self._stopping.is_set():
            events = await self._pool.views(
                lambda views, after=position: views.events(  # type: ignore[misc]
                    after, request.site, scope, limit=READ
                )
            )
            for at, message in events:
                position = at
                yield query_pb2.WatchResponse.FromString(message)
            if len(events) < READ:
                seen = await self._wait(self._decided, seen)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stops; resume elsewhere")

    async def ListEdges(  # noqa: N802
        self, request: query_pb2.ListEdgesRequest, context: Any
    ) -> query_pb2.ListEdgesResponse:
        """See proto."""
        scope = await require_query(context, request.site)
        counts = await self._pool.views(lambda views: views.edge_counts())
        response = query_pb2.ListEdgesResponse()
        for state in self._edges.all():
            if request.site and state.site != request.site:
                continue
            if scope.sites is not None and state.site not in scope.sites:
                continue
            committed, skipped = counts.get((state.site, state.edge_id), (0, {}))
            response.edges.append(
                edge_message(
                    state, committed, skipped, connected=self._connected(state.site, state.edge_id)
                )
            )
        return response

    async def _wait(self, signal: Signal, seen: int) -> int:
        stop = asyncio.create_task(self._stopping.wait())
        wake = asyncio.create_task(signal.wait(seen, FOLLOW_S))
        try:
            await asyncio.wait({stop, wake}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            wake.cancel()
            await asyncio.gather(stop, wake, return_exceptions=True)
        return signal.count


def edge_message(
    state: EdgeState, committed: int, skipped: dict[int, int], *, connected: bool
) -> query_pb2.Edge:
    """A box as the wire shows it."""
    alarms = list(state.alarms.values())
    lost = state.lost_earlier + state.lost_before_spool
    if lost:
        alarms.append(f"{lost} sightings could not be stored on the box: is its disk full?")
    return query_pb2.Edge(
        edge_id=state.edge_id,
        site=state.site,
        connected=connected,
        last_heard_unix_nanos=state.last_heard_ns,
        backlog_sightings=state.backlog,
        lag_s=state.lag_s,
        committed=committed,
        skipped=sum(skipped.values()),
        rejected=state.rejected,
        lost_before_spool=lost,
        cameras=state.cameras,
        clock_offset_ms=state.clock_offset_ms,
        clock_uncertainty_ms=state.clock_uncertainty_ms,
        software=state.software,
        alarms=alarms,
    )


async def _limit(context: Any, asked: int, default: int) -> int:
    if asked > MOST:
        await context.abort(
            grpc.StatusCode.INVALID_ARGUMENT, f"{asked} rows asked; at most {MOST} at once"
        )
    return asked or default


async def _page(context: Any, token: str, kind: Callable[[str], Any]) -> Any:
    if not token:
        return None
    first, _, second = token.partition(":")
    try:
        page = int(first), kind(second)
        if all(abs(one) <= LAST_POSITION for one in page if isinstance(one, int)):
            return page
    except ValueError:
        pass
    await context.abort(
        grpc.StatusCode.INVALID_ARGUMENT, "page_token: not one that this server gave"
    )
