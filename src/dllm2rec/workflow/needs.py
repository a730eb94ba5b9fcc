"""What a method needs of a teacher's knowledge."""

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset
from dllm2rec.distillation.kar import KARSettings
from dllm2rec.distillation.llm_cf import LLMCFSettings
from dllm2rec.distillation.methods import NoMethod, require_needs
from dllm2rec.knowledge.align import require_same_dataset
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.settings.config import TrainSettings


def require_knowledge(settings: TrainSettings, knowledge: Knowledge | None, dataset: Dataset) -> Knowledge | None:
    """Return the knowledge that the method uses; None for a plain student.

    Raises:
        UserError: it is needed and missing, of another dataset, lacks what the method asks for, or may know targets.
    """
    match settings.method:
        case NoMethod():
            return None
        case method if knowledge is None:
            raise UserError(f"method {method.kind} learns from a teacher; give --knowledge (see `dllm2rec teach`)")
        case method:
            require_same_dataset(knowledge, dataset)
            _require_unseen_targets(settings)
            require_needs(method, knowledge)
            return knowledge


def _require_unseen_targets(settings: TrainSettings) -> None:
    """Texts are written from the histories of the split's examples: other positions of those may be targets in them."""
    method = settings.method
    if isinstance(method, KARSettings | LLMCFSettings) and settings.train_on != "examples":
        raise UserError(
            f'method {method.kind} reads texts that were written from what train_on = "{settings.train_on}" has for '
            "targets; train it with --protocol paper, or with --set train_on=examples"
        )
