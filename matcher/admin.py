"""AdminService: corrections and deletions by a person.

Promise: a decision is an entry of the log, so a replay from zero keeps it; the answer comes when
association has acted on it. Forget is written to its own file before anything is deleted, and the
answer comes after ledger, identities and both write-ahead logs are rid of it. All is audited.
Threads: the event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import structlog

from matcher.associate.live import split_identity_id
from matcher.associate.model import Associator
from matcher.associate.worker import AssociationWorker
from matcher.config import LONGEST_S
from matcher.errors import MatcherError
from matcher.ingest import IngestService
from matcher.ledger import Ledger
from matcher.query import ReadPool
from matcher.retention import Ages, RetentionBook
from matcher.rights import require_admin
from matcher.schema import EntryKind
from matcher.store import LedgerStore
from matcher.views import Scope
from reid.clock import Clock
from reid.peer import Peer
from reid.ranges import KeyRanges
from reid.v1 import admin_pb2, admin_pb2_grpc
from reid.v1.query_pb2 import Identity

ACT_S = 30.0  # longest wait for association to act on a decision
_log = structlog.get_logger("admin")


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """The servicer. See proto/reid/v1/admin.proto."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        pool: ReadPool,
        worker: AssociationWorker,
        associator: Associator,
        ingest: IngestService,
        retention: RetentionBook,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._pool = pool
        self._worker = worker
        self._associator = associator
        self._ingest = ingest
        self._retention = retention
        self._clock = clock

    async def Merge(  # noqa: N802
        self, request: admin_pb2.MergeRequest, context: Any
    ) -> admin_pb2.MergeResponse:
        """See proto."""
        peer = await require_admin(context)
        one = await self._identity(context, request.identity_id)
        two = await self._identity(context, request.other_identity_id)
        if one.identity_id == two.identity_id or one.site != two.site:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the two identities are the same, or of two sites",
            )
        body: dict[str, object] = {
            "identity_id": one.identity_id,
            "other_identity_id": two.identity_id,
        }
        await self._decide(context, peer, EntryKind.MERGE, one.site, body)
        return admin_pb2.MergeResponse(identity_id=one.identity_id)

    async def Split(  # noqa: N802
        self, request: admin_pb2.SplitRequest, context: Any
    ) -> admin_pb2.SplitResponse:
        """See proto."""
        peer = await require_admin(context)
        identity = await self._identity(context, request.identity_id)
        members = {one.tracklet_id for one in identity.tracklets}
        leaving = sorted(set(request.tracklet_ids))
        strange = [one for one in leaving if one not in members]
        if not leaving or strange or len(leaving) == len(members):
            problem = (
                f"{strange[0]!r} is not one of its tracklets"
                if strange
                else (f"{len(leaving)} of its {len(members)} tracklets; at least one, and not all")
            )
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, problem)
        body: dict[str, object] = {
            "identity_id": identity.identity_id,
            "tracklet_ids": leaving,
        }
        position = await self._decide(context, peer, EntryKind.SPLIT, identity.site, body)
        return admin_pb2.SplitResponse(
            new_identity_id=split_identity_id(self._ledger.identity_salt, position)
        )

    async def Forget(  # noqa: N802
        self, request: admin_pb2.ForgetRequest, context: Any
    ) -> admin_pb2.ForgetResponse:
        """See proto."""
        peer = await require_admin(context)
        # What is committed and not yet read may belong to this identity: read it first.
        end = await self._run(context, lambda store: store.last_position())
        await self._acted(context, end)
        identity = await self._identity(context, request.identity_id)
        tracklets = [one.tracklet_id for one in identity.tracklets]
        entry = {
            "site": identity.site,
            "identity_id": identity.identity_id,
            "tracklet_ids": tracklets,
            "unix_ns": self._clock.unix_nanos(),
        }

        def job(store: LedgerStore) -> tuple[int, dict[str, KeyRanges], int]:
            self._ledger.remember_forgotten(entry)
            deleted, keys = store.forget(
                identity.site,
                identity.identity_id,
                tracklets,
                now_ns=self._clock.unix_nanos(),
            )
            store.audit(
                peer.name,
                "forget",
                {"identity_id": identity.identity_id, "tracklets": len(tracklets)},
                self._clock.unix_nanos(),
            )
            return deleted, keys, store.last_position()

        deleted, keys, position = await self._run(context, job, deletes=True)
        await self._acted(context, position)
        await self._run(context, self._ledger.checkpoint, deletes=True)
        self._worker.checkpoint_soon()
        told = self._ingest.erase(identity.site, keys)
        _log.info("forgot an identity", by=peer.name, sightings=deleted)
        return admin_pb2.ForgetResponse(sightings=deleted, keys=told)

    async def SetRetention(  # noqa: N802
        self, request: admin_pb2.SetRetentionRequest, context: Any
    ) -> admin_pb2.SetRetentionResponse:
        """See proto."""
        peer = await require_admin(context)
        if not all(0 <= age <= LONGEST_S for age in (request.ledger_s, request.identity_s)):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"ages are seconds above 0, at most {LONGEST_S:g} (a century); 0 leaves one as it "
                "is",
            )
        old = self._retention.of(request.site)
        if not request.ledger_s and not request.identity_s:
            return admin_pb2.SetRetentionResponse(ledger_s=old.ledger_s, identity_s=old.identity_s)
        ages = Ages(request.ledger_s or old.ledger_s, request.identity_s or old.identity_s)

        def job(store: LedgerStore) -> int:
            now = self._clock.unix_nanos()
            store.set_retention(request.site, ages.ledger_s, ages.identity_s)
            detail: dict[str, object] = {
                "site": request.site,
                "ledger_s": ages.ledger_s,
                "identity_s": ages.identity_s,
            }
            store.audit(peer.name, "retention", detail, now)
            body: dict[str, object] = {"identity_s": ages.identity_s}
            return store.note(EntryKind.RETENTION, request.site, "", body, now)

        await self._run(context, job)
        self._retention.set(request.site, ages)
        return admin_pb2.SetRetentionResponse(ledger_s=ages.ledger_s, identity_s=ages.identity_s)

    async def GetCalibration(  # noqa: N802
        self, request: admin_pb2.GetCalibrationRequest, context: Any
    ) -> admin_pb2.GetCalibrationResponse:
        """See proto."""
        await require_admin(context)
        if not request.site:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "site: required")
        calibration = await self._pool.views(lambda views: views.calibration())
        return admin_pb2.GetCalibrationResponse(
            pairs=[
                admin_pb2.PairCalibration(
                    space_id=space_id,
                    camera_a=camera_a,
                    camera_b=camera_b,
                    positive_mean=positive.mean,
                    positive_deviation=positive.deviation,
                    positive_pairs=positive.count,
                    negative_mean=negative.mean,
                    negative_deviation=negative.deviation,
                    negative_pairs=negative.count,
                )
                for (_, space_id, camera_a, camera_b), positive, negative in calibration.pairs(
                    request.site, request.space_id
                )
            ],
            prior_threshold=self._associator.threshold(request.space_id),
        )

    # --- helpers ----------------------------------------------------------------------------------

    async def _identity(self, context: Any, identity_id: str) -> Identity:
        found = await self._pool.views(lambda views: views.identity(identity_id, Scope()))
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no identity {identity_id!r}")
            raise AssertionError("abort raises")
        return found

    async def _decide(
        self, context: Any, peer: Peer, kind: EntryKind, site: str, body: dict[str, object]
    ) -> int:
        """Write a decision to the log and wait until association has acted on it."""

        def job(store: LedgerStore) -> int:
            now = self._clock.unix_nanos()
            store.audit(peer.name, kind.name.lower(), body, now)
            return store.note(kind, site, "", body, now)

        position: int = await self._run(context, job)
        await self._acted(context, position)
        _log.info("decided by a person", what=kind.name.lower(), by=peer.name, **body)
        return position

    async def _run(self, context: Any, job: Any, *, deletes: bool = False) -> Any:
        try:
            return await self._ledger.run(job, deletes=deletes)
        except MatcherError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def _acted(self, context: Any, position: int) -> None:
        if not await asyncio.to_thread(self._worker.wait_for, position, ACT_S):
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"written, but association has not read so far within {ACT_S:g} s",
            )
