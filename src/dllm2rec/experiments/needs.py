"""What a method needs of a teacher's knowledge."""

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset
from dllm2rec.distillation.hint import HintSettings
from dllm2rec.distillation.htd import HTDSettings
from dllm2rec.distillation.kar import KARSettings, require_texts
from dllm2rec.distillation.llm_cf import LLMCFSettings
from dllm2rec.distillation.methods import BaselineSettings, require_needs
from dllm2rec.distillation.settings import DLLM2RecSettings, reads_vectors
from dllm2rec.distillation.soft_labels import SoftLabelSettings
from dllm2rec.experiments.config import CellSettings, MethodSettings, NoMethod, VectorsMethod
from dllm2rec.knowledge.align import require_same_dataset
from dllm2rec.knowledge.store import Knowledge


def require_knowledge(settings: CellSettings, knowledge: Knowledge | None, dataset: Dataset) -> Knowledge | None:
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
            _require_contents(method, knowledge)
            return knowledge


def _require_unseen_targets(settings: CellSettings) -> None:
    """Texts are written from the histories of the split's examples: other positions of those may be targets in them."""
    method = settings.method
    if isinstance(method, KARSettings | LLMCFSettings) and settings.train_on != "examples":
        raise UserError(
            f'method {method.kind} reads texts that were written from what train_on = "{settings.train_on}" has for '
            "targets; train it with --protocol paper, or with --set train_on=examples"
        )


def _require_contents(
    method: VectorsMethod | SoftLabelSettings | DLLM2RecSettings | KARSettings | LLMCFSettings | BaselineSettings,
    knowledge: Knowledge,
) -> None:
    match method:
        case KARSettings():
            require_texts(knowledge, method.kind, "item", "user")
        case LLMCFSettings():
            require_texts(knowledge, method.kind, "chain")
        case VectorsMethod() | SoftLabelSettings() | DLLM2RecSettings():
            if (reads_item_vectors(method) or replacement(method)) and knowledge.item_vectors is None:
                instead = "" if isinstance(method, VectorsMethod) else "set method.embedding=false or "
                raise UserError(
                    f"{knowledge.path}: has no item vectors, which method {method.kind} needs; "
                    f"{instead}use a teacher that gives vectors"
                )
        case _:
            require_needs(method, knowledge)


def replacement(method: MethodSettings) -> HintSettings | HTDSettings | None:
    """Return what distils the item vectors in place of embedding distillation, if anything does."""
    if not isinstance(method, DLLM2RecSettings):
        return None
    match method.embedding:
        case "hint":
            return HintSettings()
        case "htd":
            return HTDSettings()
        case _:
            return None


def reads_item_vectors(method: MethodSettings) -> bool:
    """Say whether the student has the teacher's vectors in its item table."""
    match method:
        case VectorsMethod():
            return True
        case DLLM2RecSettings():
            return reads_vectors(method)
        case SoftLabelSettings():
            return method.embedding
        case KARSettings():
            return method.weight > 0
        case _:
            return False
