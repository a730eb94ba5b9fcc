"""The one error that is the user's to mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The input is wrong, not the program.

    The message is one line that names the file, row or field and says what to do. The command line prints it without a
    traceback and exits with 2.
    """


def suggest(name: str, options: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the option nearest to ``name``, else the sorted options."""
    known = sorted(options)
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean '{near[0]}'?)" if near else f" (known: {', '.join(known)})"
