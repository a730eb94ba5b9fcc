"""Which options of `dllm2rec teach` go together: one that nobody would read is refused, never passed over."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from dllm2rec.core.errors import UserError

if TYPE_CHECKING:
    from dllm2rec.settings.teacher import TeacherSettings

REFERENCES = ("popularity", "knn", "text", "blend", "ease")
LABELLING = ("bigrec", "retrieval", *REFERENCES)
TAKERS = {
    "llm": ("bigrec", "retrieval", "texts"),
    "model": ("encoder", "texts", "text", "blend"),
    "vectors": ("bigrec", *REFERENCES),
    "from": ("merged",),
    "choose": LABELLING,
    "seed": ("bigrec", "retrieval", "texts"),
}
"""Who may read an option; whether a teacher does can hang on other settings, see `require_read`."""
READ_TITLES = ("encoder", "text", "blend")
"""Who reads titles by a sentence encoder, and words beside."""


def require_alone(option: str, meant: str, others: Mapping[str, Any]) -> None:
    """Refuse whatever is said beside an option that decides everything.

    Raises:
        UserError: something is; names the first.
    """
    unread = [name for name, value in others.items() if value not in (None, [])]
    if unread:
        raise UserError(f"--{unread[0]} has no effect with {option}, where {meant}; leave it out")


def require_takers(teacher: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a kind of teacher never reads.

    Raises:
        UserError: there is one; says who reads it.
    """
    for name, value in options.items():
        if value is not None and teacher not in TAKERS[name]:
            raise _unread(name, teacher)


def require_once(options: Mapping[str, Any], limits: Iterable[str], settings: Iterable[str]) -> None:
    """Refuse what is said twice: by an option and by ``--set``, or by two limits.

    Raises:
        UserError: something is; names both.
    """
    from dllm2rec.settings.parsing import parse_override

    said = {"sources" if name == "from" else name: f"--{name}" for name, value in options.items() if value is not None}
    for text in limits:
        split = text.rpartition("=")[0]
        name = f"limits.{split}" if split else "limits"
        if name in said:
            raise UserError(f"{said[name]} and --limit {text}: both say how many examples to label; give one of them")
        said[name] = f"--limit {text}"
    for text in settings:
        name = ".".join(parse_override(text)[0])
        if name in said:
            raise UserError(f"{said[name]} and --set {text}: both say the same; give one of them")


def require_read(teacher: str, settings: "TeacherSettings") -> None:
    """Refuse what was set, of a teacher that labels examples, and would not be read.

    Raises:
        UserError: something would not; says what would read it.
    """
    from dllm2rec.settings.teacher import BigRecTeacher, ReferenceTeacher
    from dllm2rec.teachers.choosing import READ_VECTORS
    from dllm2rec.teachers.references import needs_vectors

    if not isinstance(settings, BigRecTeacher | ReferenceTeacher):
        return
    reads_text = False
    if isinstance(settings, ReferenceTeacher):
        kind, reads_text = settings.reference.kind, needs_vectors(settings.reference)
        if kind != teacher:
            raise UserError(f"--set reference.kind={kind}: --teacher says who teaches; give --teacher {kind}")
        encoding = settings.model_fields_set & {"model", "words"}
        if encoding and not reads_text:
            raise _unread("model" if "model" in encoding else "words", teacher)
        if encoding and settings.vectors is not None:
            name = "--model" if "model" in encoding else "--set words"
            raise UserError(f"{name} and --vectors: both say which item vectors to read; give one of them")
    if settings.limits.train == 0 and "choose" in settings.model_fields_set:
        raise UserError(
            f"--choose {settings.choose}: it is of training examples, and none is to be labelled; leave it out"
        )
    if settings.vectors is not None and not reads_text and settings.choose not in READ_VECTORS:
        raise UserError(
            f"--vectors: neither teacher {teacher} nor --choose {settings.choose} reads item vectors; teachers text "
            f"and blend do, and --choose {' or '.join(READ_VECTORS)}; leave it out"
        )


def _unread(name: str, teacher: str) -> UserError:
    option = f"--{name}" if name in TAKERS else f"--set {name}"
    return UserError(
        f"{option}: not for teacher {teacher}, it is for {', '.join(TAKERS.get(name, READ_TITLES))}; leave it out"
    )
