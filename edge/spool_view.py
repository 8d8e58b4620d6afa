"""`edge-run --spool-status`: what waits in the spool, and dead letters sent again on request.

Promise: in words, or with `--summary json` as one JSON object (the fields of SpoolReport, and
`resend`: null where nothing was asked, "running" where a running box follows it, else how many dead
letters wait again). Threads: the main thread only.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from edge.config import Config
from edge.exit_codes import ExitCode
from edge.live import human_bytes
from edge.spool_errors import SpoolError
from edge.spool_status import SpoolReport, request_resend, spool_report
from reid.clock import SystemClock


def show(config: Config, *, resend: bool) -> ExitCode:
    """Print the report; with `resend`, queue the dead letters again first."""
    again: int | str | None = None
    try:
        if resend:
            count = request_resend(config.data_dir, config=config.spool)
            again = "running" if count is None else count
        report = spool_report(config.data_dir)
    except SpoolError as error:
        print(f"edge-run: {error}", file=sys.stderr)
        return ExitCode.SPOOL
    if config.status.summary == "json":
        print(json.dumps({**asdict(report), "resend": again}, default=str))
        return ExitCode.DONE
    if again is not None:
        print(
            "the running box sends its dead letters again"
            if again == "running"
            else f"{again} dead letters will be sent again at the next start"
        )
    _print(report, Console(highlight=False, soft_wrap=True))
    return ExitCode.DONE


def _print(report: SpoolReport, out: Console) -> None:
    state = "in use by a running box" if report.running else "no box runs on it"
    out.print(f"{report.path}: {human_bytes(report.bytes)}, {state}")
    oldest = ""
    if report.oldest_unix_nanos:
        age_s = max(0.0, (SystemClock().unix_nanos() - report.oldest_unix_nanos) * 1e-9)
        oldest = f", the oldest for {_duration(age_s)}"
    out.print(f"{report.waiting} sightings wait for the matcher{oldest}; {report.acked} acked kept")
    for camera, (rows, size) in sorted(report.waiting_by_camera.items()):
        out.print(f"  {camera}: {rows} waiting, {human_bytes(size)}")
    if report.skipped:
        dropped = ", ".join(f"{count} {reason}" for reason, count in sorted(report.skipped.items()))
        out.print(f"dropped for ever: {dropped}")
    for key, rows in sorted(report.sealed_with.items()):
        if key:
            out.print(f"{rows} rows are sealed with key {key}")
        elif len(report.sealed_with) > 1:
            out.print(f"{rows} rows lie in the clear, from before there was a key")
    for path in report.set_aside:
        out.print(f"set aside, since it was damaged: {path}")
    if not report.dead:
        out.print("no dead letters")
        return
    out.print(f"{report.dead} dead letters (send them again with --spool-status --resend):")
    table = Table("key", "camera", "reason", "since (UTC)", "the matcher's words", box=None)
    for letter in report.dead_letters:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(letter.unix_nanos * 1e-9))
        key = f"{letter.writer_id[:8]}…/{letter.seq}"
        table.add_row(key, letter.camera, letter.reason, since, letter.message)
    out.print(table)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
