"""Reading and correcting a matcher: over the wire, or from the files of one that does not run.

Promise: `MatcherClient` and `LocalSource` answer the same three questions, so every report works on
both. A failure says what to do, with the reason that gRPC does not tell (which certificate, why).
Not safe for several threads at once.

    ClientError
    ├── Unreachable   no server, or it refuses the connection
    └── Refused       the server answered no; .code says which
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc

from matcher.edges import EdgeBook
from matcher.query import edge_message
from matcher.schema import IDENTITIES_FILE, LEDGER_FILE, connect
from matcher.views import Scope, Views
from reid.limits import MESSAGE_BYTES
from reid.tls import TlsFiles, channel_credentials, require_safe
from reid.tls_diagnose import diagnose
from reid.v1 import admin_pb2, admin_pb2_grpc, query_pb2, query_pb2_grpc
from reid.v1.query_pb2 import Edge, Identity, SightingFilter, TrackletSummary

T = TypeVar("T")
PAGE = 500
_UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class ClientError(Exception):
    """The matcher could not be asked; the text says why and what to do."""


class Unreachable(ClientError):
    """No server answers, or it refuses the connection."""


class Refused(ClientError):
    """The server answered no.

    Attributes:
        code: gRPC's status.
    """

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Source(Protocol):
    """Where a report reads from."""

    def identities(self, wanted: SightingFilter) -> Iterator[Identity]:
        """Identities with a tracklet that passes the filter, last seen first."""

    def tracklets(self, wanted: SightingFilter) -> Iterator[TrackletSummary]:
        """Tracklets that pass the filter, newest first."""

    def edges(self) -> list[Edge]:
        """The boxes."""


class MatcherClient:
    """A connection to a running matcher."""

    def __init__(
        self,
        address: str,
        *,
        tls: TlsFiles | None = None,
        insecure: bool = False,
        timeout_s: float = 30.0,
    ) -> None:
        """
        Args:
            address: HOST:PORT.
        Raises:
            TlsError: beyond loopback without certificates, or they do not fit together.
        """
        require_safe(address, tls, insecure=insecure, flags="--tls-ca, --tls-cert and --tls-key")
        self._address = address
        self._tls = tls
        self._timeout_s = timeout_s
        options = [("grpc.max_receive_message_length", 64 * MESSAGE_BYTES)]
        if tls is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, channel_credentials(tls), options)
        stubs: Any = (query_pb2_grpc.QueryServiceStub, admin_pb2_grpc.AdminServiceStub)
        self._query, self._admin = (stub(self._channel) for stub in stubs)

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._channel.close()

    def __enter__(self) -> MatcherClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # --- reading ----------------------------------------------------------------------------------

    def identities(self, wanted: SightingFilter) -> Iterator[Identity]:
        """See Source."""
        token = ""
        while True:
            page = self._call(
                self._query.ListIdentities,
                query_pb2.ListIdentitiesRequest(filter=wanted, page_size=PAGE, page_token=token),
            )
            yield from page.identities
            token = page.next_page_token
            if not token:
                return

    def tracklets(self, wanted: SightingFilter) -> Iterator[TrackletSummary]:
        """See Source."""
        token = ""
        while True:
            page = self._call(
                self._query.ListSightings,
                query_pb2.ListSightingsRequest(filter=wanted, page_size=PAGE, page_token=token),
            )
            yield from page.tracklets
            token = page.next_page_token
            if not token:
                return

    def edges(self) -> list[Edge]:
        """See Source."""
        return list(self._call(self._query.ListEdges, query_pb2.ListEdgesRequest()).edges)

    def identity(self, identity_id: str) -> Identity:
        """One identity."""
        request = query_pb2.GetIdentityRequest(identity_id=identity_id)
        found: Identity = self._call(self._query.GetIdentity, request).identity
        return found

    def search(self, request: query_pb2.SearchSightingsRequest) -> list[query_pb2.SearchHit]:
        """The nearest sightings."""
        return list(self._call(self._query.SearchSightings, request).hits)

    def watch(
        self, *, after_position: int = 0, from_now: bool = False, site: str = ""
    ) -> Iterator[query_pb2.WatchResponse]:
        """Identity events, for ever; resume with the position of the last one."""
        request = query_pb2.WatchRequest(
            after_position=after_position, from_now=from_now, site=site
        )
        yield from self._stream(lambda: self._query.Watch(request))

    def read(
        self, *, after_position: int = 0, site: str = "", follow: bool = False
    ) -> Iterator[query_pb2.ReadSightingsResponse]:
        """The ledger as a log, with embeddings."""
        request = query_pb2.ReadSightingsRequest(
            after_position=after_position, site=site, follow=follow
        )
        yield from self._stream(lambda: self._query.ReadSightings(request))

    # --- correcting -------------------------------------------------------------------------------

    def merge(self, identity_id: str, other_identity_id: str) -> str:
        """Say that two identities are one person; the one that stays."""
        request = admin_pb2.MergeRequest(
            identity_id=identity_id, other_identity_id=other_identity_id
        )
        return str(self._call(self._admin.Merge, request).identity_id)

    def split(self, identity_id: str, tracklet_ids: list[str]) -> str:
        """Take tracklets out of an identity; the identity they belong to now."""
        request = admin_pb2.SplitRequest(identity_id=identity_id, tracklet_ids=tracklet_ids)
        return str(self._call(self._admin.Split, request).new_identity_id)

    def forget(self, identity_id: str) -> admin_pb2.ForgetResponse:
        """Delete an identity and its sightings everywhere."""
        answer: admin_pb2.ForgetResponse = self._call(
            self._admin.Forget, admin_pb2.ForgetRequest(identity_id=identity_id)
        )
        return answer

    def set_retention(
        self, site: str, *, ledger_s: float = 0.0, identity_s: float = 0.0
    ) -> admin_pb2.SetRetentionResponse:
        """Set how long things are kept; 0 leaves one as it is."""
        answer: admin_pb2.SetRetentionResponse = self._call(
            self._admin.SetRetention,
            admin_pb2.SetRetentionRequest(site=site, ledger_s=ledger_s, identity_s=identity_s),
        )
        return answer

    def calibration(self, site: str, space_id: str = "") -> admin_pb2.GetCalibrationResponse:
        """How similarities look at a site."""
        answer: admin_pb2.GetCalibrationResponse = self._call(
            self._admin.GetCalibration,
            admin_pb2.GetCalibrationRequest(site=site, space_id=space_id),
        )
        return answer

    # --- helpers ----------------------------------------------------------------------------------

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._said(error) from error

    def _stream(self, start: Callable[[], Any]) -> Iterator[Any]:
        call = start()
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._said(error) from error
        finally:
            call.cancel()

    def _said(self, error: grpc.RpcError) -> ClientError:
        call: Any = error
        code, details = call.code(), call.details() or ""
        if code in _UNREACHABLE:
            reason = diagnose(self._address, self._tls)
            return Unreachable(reason or f"{self._address}: {details}")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return Refused(code, f"{self._address} is not an edge-match of this release: {details}")
        return Refused(code, details)


class LocalSource:
    """The files of a matcher, read without it."""

    def __init__(self, data_dir: Path) -> None:
        """
        Raises:
            Unreachable: no matcher ever served this folder.
            LedgerUnusable: a file cannot be read.
        """
        if not (data_dir / IDENTITIES_FILE).exists():
            raise Unreachable(
                f"{data_dir}: no {IDENTITIES_FILE} there; give the --data-dir of an edge-match "
                "that has run, or the --server that does"
            )
        self._data_dir = data_dir
        self._views = Views(data_dir=data_dir)

    def close(self) -> None:
        """Close the files."""
        self._views.close()

    def identities(self, wanted: SightingFilter) -> Iterator[Identity]:
        """See Source."""
        after: tuple[int, str] | None = None
        while True:
            rows = self._views.identities(wanted, Scope(), limit=PAGE, after=after)
            yield from rows
            if len(rows) < PAGE:
                return
            after = (rows[-1].last_seen_unix_nanos, rows[-1].identity_id)

    def tracklets(self, wanted: SightingFilter) -> Iterator[TrackletSummary]:
        """See Source."""
        after: tuple[int, int] | None = None
        while True:
            rows = self._views.tracklets(wanted, Scope(), limit=PAGE, after=after)
            yield from (one.summary() for one in rows)
            if len(rows) < PAGE:
                return
            after = (rows[-1].last_ns, rows[-1].number)

    def edges(self) -> list[Edge]:
        """See Source."""
        book = EdgeBook()
        connection = connect(self._data_dir / LEDGER_FILE, read_only=True)
        try:
            book.load(connection)
        finally:
            connection.close()
        counts = self._views.edge_counts()
        return [
            edge_message(state, *counts.get((state.site, state.edge_id), (0, {})), connected=False)
            for state in book.all()
        ]
