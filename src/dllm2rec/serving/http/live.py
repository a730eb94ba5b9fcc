"""The bundles that answer now, and how they are replaced."""

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from dllm2rec.core.errors import UserError
from dllm2rec.serving.bundle import version_of
from dllm2rec.serving.recommender import Recommender


@dataclass(frozen=True, kw_only=True)
class Served:
    """What one request works with from its beginning to its end, whatever is swapped meanwhile.

    Attributes:
        main: answers.
        other: is shown beside it, or None.
    """

    main: Recommender
    other: Recommender | None


class Live:
    """The recommenders of a process; `now` is replaced as a whole.

    Args:
        bundle: a directory.
        compare: a second one, or None.
        approximate: search the approximate index of the first.

    Raises:
        UserError: one is no bundle, or damaged, or there is no index.
    """

    def __init__(self, bundle: Path, compare: Path | None, *, approximate: bool = False) -> None:
        self._paths, self._approximate = (bundle, compare), approximate
        self._loading = threading.Lock()
        self.now = self._load()

    def reload(self, *, if_outdated: bool = False) -> Served:
        """Read the directories again and swap, or only if others lie there by now; the log says how that went.

        Raises:
            UserError: one is broken; what answered before goes on answering.
        """
        with self._loading:
            try:
                if if_outdated and not self._outdated():
                    return self.now
                self.now = self._load()
            except UserError as error:
                print(f"not swapped: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the log of a server
                raise
            print(f"serving {self.now.main.version}", file=sys.stderr, flush=True)  # noqa: T201
            return self.now

    def _outdated(self) -> bool:
        """Whether other bundles lie there by now than those that answer."""
        now = [one.version for one in (self.now.main, self.now.other) if one is not None]
        return [version_of(path) for path in self._paths if path is not None] != now

    def _load(self) -> Served:
        bundle, compare = self._paths
        main = Recommender.load(bundle, approximate=self._approximate)
        return Served(main=main, other=None if compare is None else Recommender.load(compare))
