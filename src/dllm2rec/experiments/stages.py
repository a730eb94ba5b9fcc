"""The stages of an experiment: said as they end, timed, and remembered."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import duration
from dllm2rec.core.files import read_json, write_json
from dllm2rec.core.progress import Say

TIMES = "times.json"
FAILURES = "failures.log"
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage did.

    Attributes:
        name: of the stage.
        path: what it made.
        cached: it was finished before.
        seconds: that it took now.
        error: why it failed, or None.
        trial: whether a search goes on without it.
        ours: whether the failure is a defect of ours.
    """

    name: str
    path: Path
    cached: bool
    seconds: float
    error: str | None = None
    trial: bool = False
    ours: bool = False


@dataclass(kw_only=True)
class Stages:
    """Runs stages one after the other.

    Attributes:
        out: directory of the experiment; holds `times.json`, the seconds of each stage over all runs.
        say: told in words what each stage did.
        total: stages in all, if none fails.
        keeps_times: whether to write `times.json`; a process beside others leaves that to the one that started it.
        tell: given every stage that ended, by a process beside others to the one that started it.
        done: what ran.
        start: when the first began, by `time.perf_counter`.
    """

    out: Path
    say: Say
    total: int
    keeps_times: bool = True
    tell: Callable[[Stage], None] = lambda _: None
    done: list[Stage] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def do(self, name: str, path: Path, work: Callable[[], Result], *, cached: bool) -> Result:
        """Run a stage; ``cached`` says that ``work`` will find it finished."""
        place = f"[{len(self.done) + 1}/{self.total}] {name}"
        if not cached:
            self.say(f"{place} ...")
        start = time.perf_counter()
        try:
            result = work()
        finally:
            seconds = time.perf_counter() - start
            if not cached and self.keeps_times:
                self.remember(name, seconds)
        self._end(Stage(name=name, path=path, cached=cached, seconds=seconds))
        self.say(f"{place}: cached, {path}" if cached else f"{place}: done in {duration(seconds)} s, {path}")
        return result

    def take(self, stage: Stage) -> None:
        """Take over what another process did, and say how far all is."""
        if not stage.cached and stage.error is None:
            self.remember(stage.name, stage.seconds)
        self._end(stage)
        place = f"[{len(self.done)}/{self.total}] {stage.name}"
        left = self.estimate()
        more = "" if left is None else f", about {duration(left)} s left"
        if stage.error is not None:
            self.say(f"{stage.name}: FAILED, {stage.error}")
        else:
            self.say(f"{place}: cached" if stage.cached else f"{place}: done in {duration(stage.seconds)} s{more}")

    def estimate(self) -> float | None:
        """Return the seconds that are left, if what is to come takes as long as what was done; None at the end."""
        elapsed = time.perf_counter() - self.start
        fresh = sum(not stage.cached for stage in self.done)
        waiting = self.total - len(self.done)
        return elapsed / fresh * waiting if fresh and waiting > 0 else None

    def lose(self, name: str, path: Path, error: str) -> None:
        """Take note of a trial that failed: its search goes on without it."""
        self._end(Stage(name=name, path=path, cached=False, seconds=0.0, error=error, trial=True))
        self.say(f"{name}: FAILED, {error}")

    def guard(self, name: str, path: Path, work: Callable[[], Result]) -> Result | None:
        """Run something that others do not need: when it fails, that is noted and said, and None is returned."""
        try:
            return work()
        except UserError as error:
            failed = Stage(name=name, path=path, cached=False, seconds=0.0, error=str(error))
        except Exception as error:
            with (self.out / FAILURES).open("a", encoding="utf-8") as log:
                log.write(f"{name}\n{traceback.format_exc()}\n")
            message = f"{type(error).__name__}: {error} (traceback in {self.out / FAILURES})"
            failed = Stage(name=name, path=path, cached=False, seconds=0.0, error=message, ours=True)
        self._end(failed)
        self.say(f"{name}: FAILED, {failed.error}")
        return None

    def _end(self, stage: Stage) -> None:
        self.done.append(stage)
        self.tell(stage)

    def remember(self, name: str, seconds: float) -> None:
        """Add to the seconds of a stage."""
        times = self.times()
        write_json(self.out / TIMES, times | {name: round(times.get(name, 0.0) + seconds, 2)})

    def times(self) -> dict[str, float]:
        """Return the seconds of each stage over all runs so far."""
        file = self.out / TIMES
        times: dict[str, float] = read_json(file) if file.is_file() else {}
        return times
