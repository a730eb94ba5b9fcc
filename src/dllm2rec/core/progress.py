"""Progress bars with an estimate, on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES, SECONDS_TO_FIRST = 30.0, 5.0
Say = Callable[[str], None]
"""Told in words what was done."""
_silent = False


def silence_progress() -> None:
    """Show no more bars in this process: another one says what it does."""
    global _silent  # noqa: PLW0603 - one of a process, as its terminal is
    _silent = True


class Advance(Protocol):
    """Report that ``steps`` more units are done; ``note`` is shown beside the bar until another one is."""

    def __call__(self, steps: int = 1, *, note: str | None = None) -> None:
        """Move the bar by ``steps``."""


@contextmanager
def progress_bar(description: str, total: int, *, completed: int = 0) -> Iterator[Advance]:
    """Show a bar with elapsed and remaining time; where there is no terminal, a line after 5 and then every 30 seconds.

    Args:
        description: what is being done.
        total: units of work in all.
        completed: units that an earlier, interrupted run has done.

    Yields:
        A function to call when units are done.
    """
    if _silent:
        yield _say_nothing
        return
    console = Console(stderr=True, markup=False, emoji=False)
    if not console.is_terminal:
        yield _line_reporter(console, description, total, completed)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, completed=completed, note="")

        def advance(steps: int = 1, *, note: str | None = None) -> None:
            bar.update(task, advance=steps)
            if note is not None:
                bar.update(task, note=note)

        yield advance


def _say_nothing(steps: int = 1, *, note: str | None = None) -> None:
    del steps, note


def _line_reporter(console: Console, description: str, total: int, completed: int) -> Advance:
    start = time.monotonic()
    done, following, shown = completed, start + SECONDS_TO_FIRST, ""

    def advance(steps: int = 1, *, note: str | None = None) -> None:
        nonlocal done, following, shown
        done += steps
        shown = shown if note is None else note
        now = time.monotonic()
        if now < following:
            return
        following = now + SECONDS_BETWEEN_LINES
        left = (now - start) / max(done - completed, 1) * (total - done)
        console.print(
            f"{description}: {done}/{total}, about {left:.0f} s left {shown}".rstrip(), highlight=False, soft_wrap=True
        )

    return advance
