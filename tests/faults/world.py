"""A small world to break: a matcher, a box behind a fault proxy, their disks and clocks.

Everything is a real process, a real file system (tmpfs where the machine lets us mount one), a real
socket. `World.faults` names every kind of fault; each leaves the world running again.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.box import EXIT_SPOOL_UNUSABLE
from tests.faults.judge import Verdict, acked_but_absent, judge
from tests.faults.oracle import Captured, Ledger, Restore, SpoolState, hole_alarms
from tests.faults.proxy import Behaviour, FaultProxy

ROOT = Path(__file__).resolve().parent.parent.parent
RATE = 60.0
BOX_DISK_MIB = 48
SPOOL_BYTES = 6 << 20
PLANTED_SPOOL_BYTES = 1 << 20
ROW_BYTES, JOURNAL_LINE_BYTES = 1600, 146  # of one sighting of the box here
OVERFLOW_S = 15.0  # a busy machine may take longer to fill the spool; then it is not filled
# A machine with other work starts a process in a minute: only what hangs is a failure here.
START_S = 240.0
END_S = 60.0
MATCHER_PLANTS = ("early-ack", "false-hole")
_FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)


class WorldBroken(Exception):
    """The world did not come back after a fault: as bad as a lost sighting."""


def faketime_library() -> str | None:
    """Where libfaketime is; None: clocks cannot be moved here."""
    return next((path for path in _FAKETIME if Path(path).exists()), None)


def forget_clock(pid: int) -> None:
    """Remove what libfaketime leaves of a killed process: another one may get its number."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        Path("/dev/shm", name).unlink(missing_ok=True)


@dataclass
class World:
    """One box, one matcher, and what may happen to them.

    Args:
        folder: everything lies here.
        seed: of every choice.
        plant: a bug to build in; see tests.faults.box and tests.faults.bad_matcher.
        restores: of the ledger, to a backup.
        rolled_back: writers that ran between a copy of the spool and its return.
        clones: spools of clones at their end.
        slow_ends: processes that had not ended END_S after SIGTERM.
        tmpfs: give the box a small disk of its own; needs the right to mount.
    """

    folder: Path
    seed: int = 0
    plant: str = ""
    tmpfs: bool = True
    journals: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    rolled_back: set[str] = field(default_factory=set)
    slow_ends: int = 0
    restores: list[Restore] = field(default_factory=list)
    clones: list[SpoolState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.proxy = FaultProxy()
        self.box: subprocess.Popen[bytes] | None = None
        self.matcher: subprocess.Popen[bytes] | None = None
        self._mounted = False
        self._starts = 0
        self.box_dir = self.folder / "disk" / "box"
        self.matcher_dir = self.folder / "matcher"
        self.control = self.folder / "control.json"
        self.log = self.folder / "log.txt"

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> World:
        (self.folder / "disk").mkdir(parents=True)
        if self.tmpfs:
            command = ["mount", "-t", "tmpfs", "-o", f"size={BOX_DISK_MIB}m", "tmpfs"]
            self._mounted = not subprocess.run(
                [*command, str(self.folder / "disk")], check=False, capture_output=True
            ).returncode
        self.box_dir.mkdir()
        self.matcher_dir.mkdir()
        for who in ("box", "matcher"):
            (self.folder / f"{who}.time").write_text("+0\n")
        self.set_control()
        self.proxy.start()
        try:
            self.start_matcher()
            self.start_box()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self.box, self.matcher):
            if process is not None and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()
                forget_clock(process.pid)
        self.proxy.stop()
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.folder / "disk")], check=False)

    def box_options(self) -> list[str]:
        """Flags of the box that another world may change."""
        if self.plant:
            # Both are full at once, also where the machine is too busy to fill larger ones.
            return ["--max-bytes", str(PLANTED_SPOOL_BYTES), "--queue-rows", "64"]
        return ["--max-bytes", str(SPOOL_BYTES)]

    def set_control(
        self, *, rate: float = RATE, shuffle: float = 0.0, cameras: Sequence[int] = (0, 1, 2, 3)
    ) -> None:
        """What the running box does from now on."""
        part = self.control.with_suffix(".part")
        wanted = {"rate": rate, "shuffle": shuffle, "cameras": list(cameras)}
        part.write_text(json.dumps(wanted))
        part.rename(self.control)

    def _environment(self, who: str) -> dict[str, str]:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
        library = faketime_library()
        if library is not None:
            environment |= {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(self.folder / f"{who}.time"),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DISABLE_SHM": "1",
                # Its own cure for waits on the monotonic clock makes each far too long here.
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
                # Otherwise it moves the monotonic clock, too, which no real step of UTC does.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        return environment

    def start_matcher(self) -> None:
        """Start it on a free port and point the proxy there."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        planted = self.plant in MATCHER_PLANTS
        module = "tests.faults.bad_matcher" if planted else "matcher.cli"
        with self.log.open("ab") as log:
            self.matcher = subprocess.Popen(
                [
                    sys.executable, "-m", module, "serve", "--listen", "127.0.0.1:0",
                    "--data-dir", str(self.matcher_dir), "--metrics", "",
                    "--ready-file", str(ready),
                ],
                stdout=log, stderr=log, cwd=ROOT,
                env=self._environment("matcher") | {"FAULTS_PLANT": self.plant},
            )  # fmt: skip
        self.wait(ready.exists, "the matcher to listen")
        host, _, port = json.loads(ready.read_text())["address"].rpartition(":")
        self.proxy.target = (host, int(port))

    def start_box(self, folder: Path | None = None, *, rate: float | None = None) -> None:
        """Start the box, or a clone of it in another folder."""
        process = self._spawn_box(folder or self.box_dir)
        if folder is None:
            self.box = process
        if rate is not None:
            self.set_control(rate=rate)

    def _spawn_box(self, folder: Path) -> subprocess.Popen[bytes]:
        self._starts += 1
        journal = self.folder / f"journal-{self._starts}.txt"
        journal.touch()
        self.journals.append(journal)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "tests.faults.box", "--data-dir", str(folder),
                    "--matcher", self.proxy.address, "--journal", str(journal),
                    "--control", str(self.control), "--rate", str(RATE),
                    "--seed", str(self._starts), *self.box_options(),
                    "--plant", "" if self.plant in MATCHER_PLANTS else self.plant,
                ],
                stdout=log, stderr=log, cwd=ROOT, env=self._environment("box"),
            )  # fmt: skip

    def kill(self, process: subprocess.Popen[bytes] | None) -> None:
        """kill -9."""
        assert process is not None
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(20)
        forget_clock(process.pid)

    def stop(self, process: subprocess.Popen[bytes] | None) -> int:
        """SIGTERM, and its exit code."""
        assert process is not None
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            return process.wait(END_S)
        except subprocess.TimeoutExpired:
            # A supervisor would do the same: kill -9, which nothing acked may suffer from.
            self.slow_ends += 1
            self.kill(process)
            return 0

    def wait(self, condition: Callable[[], bool], what: str, within_s: float = START_S) -> None:
        """Wait for a condition; the world is broken if it does not come."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-3000:]
                raise WorldBroken(f"waited {within_s} s for {what}; last log:\n{tail}")
            time.sleep(0.02)

    def run_for(self, low_s: float, high_s: float) -> None:
        """Let the world run: the time between faults is part of what is random."""
        time.sleep(self.random.uniform(low_s, high_s))

    def captures(self) -> bool:
        """Whether the newest box has committed something."""
        return "\nS " in self.journals[-1].read_text()

    def _ended(self) -> bool:
        return self.box is not None and self.box.poll() is not None

    def box_runs(self) -> bool:
        """Whether the newest box is past its start."""
        return self.journals[-1].stat().st_size > 0

    # -- faults ----------------------------------------------------------------------------------

    def faults(self) -> dict[str, Callable[[], None]]:
        """Every kind of fault that this machine can do."""
        kinds: dict[str, Callable[[], None]] = {
            "kill_box": self.kill_box,
            "kill_matcher": self.kill_matcher,
            "stop_box": lambda: self._pause(self.box),
            "stop_matcher": lambda: self._pause(self.matcher),
            "cut_network": lambda: self._network(Behaviour(cut=True)),
            "half_open": lambda: self._network(Behaviour(half_open=True), 0.5, 3.0),
            "delay": lambda: self._network(Behaviour(delay_s=self.random.uniform(0.01, 0.1))),
            "byte_limit": lambda: self._network(
                Behaviour(byte_limit=self.random.randrange(200, 60_000))
            ),
            "shuffled_batches": self.shuffle,
            "restored_ledger": self.restore_ledger,
            "rolled_back_spool": self.roll_back_spool,
            "cloned_box": self.clone_box,
            "overflow": self.overflow,
        }
        if faketime_library() is not None:
            kinds["clock_jump"] = self.jump_clock
        if self._mounted:
            kinds |= {"full_disk": self.fill_disk, "read_only_disk": self.read_only_disk}
        return kinds

    def happen(self, kind: str) -> None:
        """Let one fault of this kind happen, and the world recover from it."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._mostly_at_work()
        self.faults()[kind]()

    def _mostly_at_work(self) -> None:
        """Mostly a box at work is hit; now and then one that is still starting."""
        if self.random.random() < 0.85:
            self.wait(self.captures, "the box to capture")

    def kill_box(self) -> None:
        """kill -9 in the middle of capturing, sometimes twice in a row."""
        self.run_for(0.1, 0.8)
        self.kill(self.box)
        self.start_box()
        if self.random.random() < 0.2:
            self.run_for(0.0, 0.6)
            self.kill(self.box)
            self.start_box()

    def kill_matcher(self) -> None:
        """kill -9 while acks are under way; what was acked must be in the ledger."""
        self.run_for(0.1, 0.8)
        self.kill(self.matcher)
        time.sleep(0.2)  # acks that were on their way are in the journal by now
        self._check_acked()
        self.start_matcher()

    def _check_acked(self) -> None:
        captured = Captured.read(self.journals, self.restores)
        ledger = Ledger.read(self.matcher_dir / "ledger.db")
        absent = acked_but_absent(captured, ledger)
        if absent:
            first = sorted(absent)[:2]
            self.problems.append(f"{len(absent)} keys were acked, but not committed: {first}")

    def _pause(self, process: subprocess.Popen[bytes] | None) -> None:
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        self.run_for(0.2, 2.5)
        process.send_signal(signal.SIGCONT)
        self.run_for(0.0, 0.3)

    def _network(self, behaviour: Behaviour, low_s: float = 0.2, high_s: float = 1.5) -> None:
        self.proxy.set(behaviour)
        self.run_for(low_s, high_s)
        self.proxy.set(Behaviour())
        self.run_for(0.0, 0.5)

    def shuffle(self) -> None:
        """Batches sent twice, or after the ones that follow them."""
        self.set_control(rate=RATE * 3, shuffle=0.6)
        self.run_for(0.5, 1.5)
        self.set_control()
        self.run_for(0.4, 0.6)

    def restore_ledger(self) -> None:
        """The ledger goes back to a backup; the box sends again what it had acked since."""
        backup = self.folder / "backup.db"
        backup.unlink(missing_ok=True)
        subprocess.run(
            [
                sys.executable, "-m", "matcher.cli", "backup", str(backup),
                "--data-dir", str(self.matcher_dir),
            ],
            check=True, capture_output=True, cwd=ROOT, env=self._environment("matcher"),
            timeout=START_S,
        )  # fmt: skip
        self.run_for(0.3, 1.2)
        self.kill(self.matcher)
        had = Ledger.read(self.matcher_dir / "ledger.db").receipts
        self.restores.append(
            Restore(
                forgotten=frozenset(had - Ledger.read(backup).receipts),
                lengths={path: path.stat().st_size for path in self.journals},
                log_bytes=self.log.stat().st_size,
            )
        )
        for ending in ("-wal", "-shm"):
            (self.matcher_dir / f"ledger.db{ending}").unlink(missing_ok=True)
        shutil.copy(backup, self.matcher_dir / "ledger.db")
        self.start_matcher()
        self.run_for(0.2, 0.6)

    def roll_back_spool(self) -> None:
        """The box's database is replaced by an older copy of itself; its marks are not."""
        self.wait(self.box_runs, "the box to start")
        self.stop(self.box)
        copies = self._copy_spool(self.box_dir, self.folder)
        started = len(self.journals)
        self.start_box()
        self._mostly_at_work()
        self.run_for(0.1, 0.8)
        if self.random.random() < 0.5:
            self.proxy.set(Behaviour(cut=True))
            self.run_for(0.2, 0.6)
        self.kill(self.box)
        self.proxy.set(Behaviour())
        for ending in ("", "-wal", "-shm"):
            (self.box_dir / f"spool.sqlite{ending}").unlink(missing_ok=True)
        for copy in copies:
            shutil.copy(copy, self.box_dir)
        since = Captured.read(self.journals[started:])
        self.rolled_back.update(process.writer_id for process in since.processes)
        self.start_box()

    @staticmethod
    def _copy_spool(folder: Path, to: Path) -> list[Path]:
        """Copy a spool that no box has open; with its WAL, where its box did not end by itself."""
        for ending in ("", "-wal"):
            (to / f"spool.sqlite{ending}").unlink(missing_ok=True)
        names = [f"spool.sqlite{ending}" for ending in ("", "-wal")]
        return [Path(shutil.copy(folder / n, to)) for n in names if (folder / n).exists()]

    def clone_box(self) -> None:
        """A copy of the box's folder runs beside it under the same name; later it drains alone."""
        clone_dir = self.folder / f"clone-{self._starts}"
        with contextlib.suppress(shutil.Error):  # files vanish while they are copied
            shutil.copytree(self.box_dir, clone_dir)
        clone = self._spawn_box(clone_dir)
        self._mostly_at_work()
        self.run_for(0.2, 1.5)
        self.kill(self.box)
        self.kill(clone)
        # The matcher keeps refusing both for three minutes; a restart forgets that.
        self.stop(self.matcher)
        self.start_matcher()
        self.set_control(rate=0)
        clone = self._spawn_box(clone_dir)
        self.wait(self.box_runs, "the clone to start")
        self._drained(clone_dir)
        if self.stop(clone):
            self.problems.append("the clone did not end well")
        self.clones.append(SpoolState.read(clone_dir / "spool.sqlite"))
        shutil.rmtree(clone_dir)
        self.set_control()
        self.start_box()

    def overflow(self) -> None:
        """No matcher and far too many sightings: the cap must force drops, and tell each."""
        self.wait(self.captures, "the box to capture")
        self.proxy.set(Behaviour(cut=True))
        # a planted bug must come to light: faster than any disk, so that the queue is full for sure
        self.set_control(rate=100_000 if self.plant else 4000)
        before = self.journals[-1].stat().st_size
        cap = PLANTED_SPOOL_BYTES if self.plant else SPOOL_BYTES
        enough = before + cap * 13 // 10 // ROW_BYTES * JOURNAL_LINE_BYTES
        self.run_for(2.0, 3.0)
        deadline = time.monotonic() + (START_S if self.plant else OVERFLOW_S)
        while self.journals[-1].stat().st_size < enough and time.monotonic() < deadline:
            time.sleep(0.02)
        self.set_control()
        self.proxy.set(Behaviour())
        self.run_for(0.5, 1.0)

    def jump_clock(self) -> None:
        """UTC of one end steps by hours, forth or back, and stays there for a while."""
        who = self.random.choice(("box", "matcher"))
        hours = self.random.choice((-30, -5, -1, 1, 5, 30))
        (self.folder / f"{who}.time").write_text(f"{hours:+d}h\n")
        self.run_for(0.5, 1.5)
        if self.random.random() < 0.7:
            (self.folder / f"{who}.time").write_text("+0\n")

    def fill_disk(self) -> None:
        """Nothing is left on the box's disk, then there is again."""
        filler = self.folder / "disk" / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
        if self.random.random() < 0.5:
            self.proxy.set(Behaviour(cut=True))
        if self.random.random() < 0.3:
            self.kill(self.box)
            self.start_box()
        self.set_control(rate=RATE * 5)
        self.run_for(0.5, 2.0)
        filler.unlink()
        self.set_control()
        self.proxy.set(Behaviour())
        self.run_for(0.3, 0.8)
        assert self.box is not None
        if self.box.poll() is not None:
            if self.box.returncode != EXIT_SPOOL_UNUSABLE:
                self.problems.append(f"full disk: the box ended with {self.box.returncode}")
            self.start_box()

    def read_only_disk(self) -> None:
        """The disk comes back read-only after a crash: the box says so (exit 6) and loses
        nothing."""
        self.run_for(0.1, 0.5)
        self.kill(self.box)
        disk = str(self.folder / "disk")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        self.start_box()
        assert self.box is not None
        code = self.box.wait(START_S)
        if code != EXIT_SPOOL_UNUSABLE:
            self.problems.append(f"read-only disk: the box ended with {code}, not 6")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        self.start_box()

    # -- the end -----------------------------------------------------------------------------------

    def _drained(self, folder: Path, within_s: float = START_S) -> None:
        """Wait until nothing in a running box's spool waits for an ack."""

        def nothing_waits() -> bool:
            try:
                db = sqlite3.connect(
                    f"{(folder / 'spool.sqlite').absolute().as_uri()}?mode=ro", uri=True
                )
                try:
                    waiting = db.execute("SELECT count(*) FROM sighting WHERE state = 0")
                    return int(waiting.fetchone()[0]) == 0
                finally:
                    db.close()
            except sqlite3.Error:
                return False  # not made yet

        self.wait(nothing_waits, f"{folder.name} to drain", within_s)

    def settle(self) -> Verdict:
        """Stop capturing, let everything arrive, end both processes, and judge."""
        self.set_control(rate=0)
        self.proxy.set(Behaviour())
        for who in ("box", "matcher"):
            (self.folder / f"{who}.time").write_text("+0\n")
        assert self.box is not None
        self.wait(lambda: self.box_runs() or self._ended(), "the box to start")
        # A fresh start: what the last process kept only in its memory must not count.
        self.stop(self.box)
        self.start_box()
        self.wait(self.box_runs, "the box to start")
        time.sleep(1.0)
        self._drained(self.box_dir)
        time.sleep(0.5)  # Skipped has no ack: give what was told last time to be committed
        if self.stop(self.box):
            self.problems.append("the box did not end well")
        if self.stop(self.matcher):
            self.problems.append("the matcher did not end well")
        log = self.log.read_text(errors="replace")
        alarms = hole_alarms(self.log, self.restores)
        verdict = judge(
            Captured.read(self.journals, self.restores),
            Ledger.read(self.matcher_dir / "ledger.db"),
            [SpoolState.read(self.box_dir / "spool.sqlite"), *self.clones],
            rolled_back=self.rolled_back,
            alarmed="keys are missing in the ledger" in log,
            alarms=alarms,
        )
        verdict.problems.extend(self.problems)
        if not verdict.holds and self._mounted:
            # The small disk goes with this world; what is to be looked at must not.
            shutil.copytree(self.box_dir, self.folder / "box-at-the-end")
        return verdict
