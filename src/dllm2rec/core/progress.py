"""Progress bars with an estimate, on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

SECONDS_BETWEEN_LINES, SECONDS_TO_FIRST = 30.0, 5.0
BAR, FIGURES, FEWEST_LETTERS = 40, 46, 16
"""Columns of a terminal: of the bar where there is so much room, of a short one with its figures, of what is done."""
Say = Callable[[str], None]
"""Told in words what was done."""
_silent = False


def silence_progress() -> None:
    """Show no more bars in this process: another one says what it does."""
    global _silent  # noqa: PLW0603 - one of a process, as its terminal is
    _silent = True


class Advance(Protocol):
    """Report that ``steps`` more units are done; ``note`` is shown with the bar until another one is."""

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
        BarColumn(None, table_column=Column(max_width=BAR)),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    named = Text(description)
    named.truncate(max(console.width - FIGURES, FEWEST_LETTERS), overflow="ellipsis")
    with _Bar(*columns, console=console) as bar:
        task = bar.add_task(named.plain, total=total, completed=completed, note="")

        def advance(steps: int = 1, *, note: str | None = None) -> None:
            bar.update(task, advance=steps)
            if note is not None:
                bar.update(task, note=note)

        yield advance


class _Bar(Progress):
    """A bar with its note on a line of its own, so that it fits into a narrow terminal."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        yield from (
            Text(task.fields["note"], no_wrap=True, overflow="ellipsis") for task in self.tasks if task.fields["note"]
        )


def _say_nothing(steps: int = 1, *, note: str | None = None) -> None:
    del steps, note


def _line_reporter(console: Console, description: str, total: int, completed: int) -> Advance:
    done, following, shown = completed, time.monotonic() + SECONDS_TO_FIRST, ""
    first: tuple[float, int] | None = None  # when the first units were done: what came before prepared for them

    def advance(steps: int = 1, *, note: str | None = None) -> None:
        nonlocal done, following, shown, first
        done += steps
        shown = shown if note is None else note
        now = time.monotonic()
        first = (now, done) if first is None and steps else first
        if now < following:
            return
        following = now + SECONDS_BETWEEN_LINES
        estimate = ""
        if first is not None and done > first[1]:
            estimate = f", about {(now - first[0]) / (done - first[1]) * (total - done):.0f} s left"
        note_of = f"; {shown}" if shown else ""
        console.print(f"{description}: {done}/{total}{estimate}{note_of}", highlight=False, soft_wrap=True)

    return advance
