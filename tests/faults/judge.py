"""Compares what the box captured, what was acked, what the ledger holds: the guarantee, key by key.

What a fault may cost is charged to the keys that it touched, never to the run: a spool put back to
an older copy excuses UNREADABLE keys of the writers that ran since the copy was made; a ledger put
back to a backup excuses keys committed since the backup, until they are acked again. Everything
else is judged to the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from reid.v1.ingest_pb2 import SKIP_REASON_UNREADABLE, SkipReason
from tests.faults.oracle import Captured, HoleAlarm, Key, Ledger, SpoolState

# Rows that kill -9 may leave committed and not in the journal: one transaction of the spool.
GROUP_ROWS = 256


@dataclass
class Verdict:
    """What the oracle found.

    Attributes:
        captured: rows whose transaction returned.
        acked: of them, acked.
        missing: of them, told as skipped: reason -> keys.
        lost: keys that are nowhere and of which nobody says why.
        holes: keys that a restored ledger forgot after the box's cap had taken the acked rows: the
            stated limit of a refill, and both ends must have raised the alarm.
        doubled: contents that stand in the ledger more than once.
        lost_before_spool: sightings that the box refused or could not append, and counted.
        alarms: of holes, raised by the matcher.
        exempt: writers whose UNREADABLE keys are no fault: a spool was put back under them.
        problems: everything else that must not be, in words.
    """

    captured: int = 0
    acked: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    holes: int = 0
    doubled: int = 0
    lost_before_spool: int = 0
    alarms: int = 0
    exempt: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether the guarantee held."""
        return not (self.lost or self.doubled or self.problems)


def acked_but_absent(captured: Captured, ledger: Ledger) -> set[Key]:
    """Keys that were acked although the ledger never committed them, or not since a backup of it
    was put back."""
    return captured.acked - ledger.receipts - captured.forgotten


def judge(
    captured: Captured,
    ledger: Ledger,
    spools: Sequence[SpoolState],
    *,
    rolled_back: Set[str] = frozenset(),
    alarmed: bool = False,
    alarms: Sequence[HoleAlarm] = (),
) -> Verdict:
    """The verdict at the end, after every box has drained.

    Args:
        spools: the box's, then those of its clones.
        rolled_back: writers that ran between a copy of the spool and its return.
        alarmed: the box said that keys are missing.
        alarms: what the matcher said of that.
    """
    verdict = Verdict(captured=len(captured.rows), alarms=len(alarms), exempt=len(rolled_back))
    verdict.acked = len(captured.acked & set(captured.rows))
    told: dict[Key, int] = {}
    dead: set[Key] = set()
    for spool in spools:
        told = spool.skipped | told
        dead |= spool.dead
        if spool.waiting:
            verdict.problems.append(f"{len(spool.waiting)} rows still wait after the drain")
    # What a spool told before it was put back stands with the ledger alone.
    excused = {k: r for k, r in ledger.skipped.items() if k[0] in rolled_back and k not in told}
    _judge_keys(verdict, captured, ledger, told | excused, dead, rolled_back)
    doubled = [what for what, count in ledger.contents.items() if count > 1]
    verdict.doubled = len(doubled)
    if doubled:
        verdict.problems.append(f"twice in the ledger, first of {len(doubled)}: {doubled[:3]}")
    if captured.reused:
        keys = len(captured.reused)
        verdict.problems.append(f"{keys} keys were given to two contents")
    if verdict.holes and not alarmed:
        verdict.problems.append(f"{verdict.holes} keys forgotten by the ledger, without an alarm")
    if captured.holes != verdict.holes:
        verdict.problems.append(
            f"the box counts {captured.holes} keys that nobody has, in truth {verdict.holes}"
        )
    absent = acked_but_absent(captured, ledger)
    if absent:
        verdict.problems.append(f"{len(absent)} keys acked, but not in the ledger")
    verdict.problems.extend(_counter_problems(spools))
    verdict.problems.extend(_telling_problems(ledger, told | excused, dead))
    verdict.problems.extend(_invented_problems(captured, ledger, spools))
    verdict.problems.extend(_refusal_problems(captured))
    verdict.problems.extend(_alarm_problems(alarms))
    verdict.lost_before_spool = sum(process.lost for process in captured.processes)
    return verdict


def _judge_keys(
    verdict: Verdict,
    captured: Captured,
    ledger: Ledger,
    told: dict[Key, int],
    dead: set[Key],
    rolled_back: Set[str],
) -> None:
    """Where each captured key is."""
    missing: Counter[str] = Counter()
    lost: list[Key] = []
    untold: list[Key] = []
    unreadable: list[Key] = []
    for key, (digest, _) in captured.rows.items():
        if key in ledger.rows:
            if ledger.rows[key] != digest and key not in captured.reused:
                verdict.problems.append(f"{key}: the ledger holds another content")
        elif key in dead:
            missing["dead_letter"] += 1
        elif key in told:
            missing[SkipReason.Name(told[key]).removeprefix("SKIP_REASON_").lower()] += 1
            if key not in ledger.skipped:
                untold.append(key)
            if told[key] == SKIP_REASON_UNREADABLE and key[0] not in rolled_back:
                unreadable.append(key)
        elif key in captured.reused:
            pass  # named by the caller
        elif key in captured.forgotten and key in captured.acked:
            verdict.holes += 1
        else:
            lost.append(key)
    verdict.missing = dict(missing)
    verdict.lost = len(lost)
    if lost:
        verdict.problems.append(f"lost, first of {len(lost)}: {sorted(lost)[:3]}")
    if untold:
        verdict.problems.append(
            f"{len(untold)} keys skipped here, but the ledger was not told: {sorted(untold)[:3]}"
        )
    if unreadable:
        # The spool accounts for every key at its start, so rows deleted without a word come out as
        # UNREADABLE: better than silence, and still a fault where no disk was damaged.
        verdict.problems.append(
            f"{len(unreadable)} keys unreadable on a sound disk: {sorted(unreadable)[:3]}"
        )


def _counter_problems(spools: Sequence[SpoolState]) -> list[str]:
    """A spool's counters stand in the same file as what they count: also of an older copy."""
    problems = []
    for spool in spools:
        in_table = Counter(SkipReason.Name(reason) for reason in spool.skipped.values())
        counted = {
            name.removeprefix("skipped."): value
            for name, value in spool.counters.items()
            if name.startswith("skipped.")
        }
        for name in sorted(in_table.keys() | counted.keys()):
            if in_table[name] != counted.get(name, 0):
                problems.append(
                    f"{name}: {in_table[name]} keys skipped, but {counted.get(name, 0)} counted"
                )
    return problems


def _telling_problems(ledger: Ledger, told: dict[Key, int], dead: set[Key]) -> list[str]:
    """What the ledger was told of is what the box counts: dropped here, told there."""
    extra = ledger.skipped.keys() - told.keys() - dead - ledger.receipts
    if not extra:
        return []
    return [f"{len(extra)} keys skipped in the ledger, but not here: {sorted(extra)[:3]}"]


def _invented_problems(
    captured: Captured, ledger: Ledger, spools: Sequence[SpoolState]
) -> list[str]:
    """No key stands anywhere that was not captured, but for the last transaction of a process that
    was killed before it could write it into its journal."""
    last: dict[str, int] = {}
    for writer, seq in captured.rows:
        last[writer] = max(last.get(writer, 0), seq)
    known = set(ledger.rows)
    for spool in spools[:1]:
        known |= spool.skipped.keys() | spool.acked | spool.waiting | spool.dead
    ended = {process.writer_id for process in captured.processes if process.ended is not None}
    invented = [
        (writer, seq)
        for writer, seq in known - captured.rows.keys()
        if writer in ended or not 0 < seq - last.get(writer, 0) <= GROUP_ROWS
    ]
    if not invented:
        return []
    return [f"{len(invented)} keys that nobody captured: {sorted(invented)[:3]}"]


def _refusal_problems(captured: Captured) -> list[str]:
    """`lost_before_spool` is what was offered and not committed, no more and no less."""
    problems = []
    for process in captured.processes:
        who = f"writer {process.writer_id[:8]}"
        for refused, counted in process.refusals:
            if refused != counted:
                problems.append(f"{who}: {refused} refused before the spool, but {counted} counted")
                break
        if process.ended is not None:
            offered, refused, counted = process.ended
            if offered != process.committed + counted or refused > counted:
                problems.append(
                    f"{who}: {offered} offered, {process.committed} committed, but {counted} "
                    f"counted as lost before the spool ({refused} of them refused)"
                )
    return problems


def _alarm_problems(alarms: Iterable[HoleAlarm]) -> list[str]:
    """An alarm of a hole names a key that a restored ledger forgot, and no more than there are."""
    false = [
        alarm
        for alarm in alarms
        if alarm.keys > len(alarm.forgotten)
        or not any(
            seq == alarm.seq and writer.startswith(alarm.writer) for writer, seq in alarm.forgotten
        )
    ]
    return [
        f"alarm of a hole where there is none: {alarm.keys} keys from {alarm.writer}…/{alarm.seq}"
        for alarm in false[:3]
    ]
