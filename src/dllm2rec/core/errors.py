"""The error for wrong input, which the command line shows as one line."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """The input is wrong, not the program.

    The message is one line that names the file, row or field and says what to do. The command line prints it without a
    traceback and exits with `code`.
    """

    code = 2


class RefusedError(UserError):
    """Nothing was wrong with the input, but what came out is not good enough to stand without the user's word."""

    code = 3


def first_line(error: BaseException) -> str:
    """Return the first line that an error says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_problem(error: Any) -> str:
    """Say where the first thing is that is wrong, and what, of a `ValidationError` of pydantic, or FastAPI's own."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def suggest(name: str, options: Iterable[str], *, before: str = "") -> str:
    """Return ``" (did you mean 'x'?)"`` for the option nearest to ``name``, else the sorted options.

    ``before`` is written before the nearest.
    """
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{before}{near[0]}'?)" if near else f" (known: {', '.join(known)})"
