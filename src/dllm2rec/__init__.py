"""Distil a large language model recommender into a small sequential one (DLLM2Rec, arXiv:2405.00338).

The verbs of the command line as functions, and the settings they take. Nothing heavy is imported before it is used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or onnxruntime reports what it runs, and where, to its makers

if TYPE_CHECKING:
    from dllm2rec.bundling.adding import Added as Added
    from dllm2rec.bundling.adding import add_items as add_items
    from dllm2rec.bundling.baseline import BaselineExport as BaselineExport
    from dllm2rec.bundling.baseline import export_baseline as export_baseline
    from dllm2rec.bundling.batch import BatchDone as BatchDone
    from dllm2rec.bundling.batch import recommend_all as recommend_all
    from dllm2rec.bundling.exporting import Export as Export
    from dllm2rec.bundling.exporting import export as export
    from dllm2rec.comparison.comparing import compare as compare
    from dllm2rec.comparison.doctor import examine as examine
    from dllm2rec.comparison.examination import Examination as Examination
    from dllm2rec.comparison.results import Comparison as Comparison
    from dllm2rec.core.errors import RefusedError as RefusedError
    from dllm2rec.core.errors import UserError as UserError
    from dllm2rec.data import Columns as Columns
    from dllm2rec.data import Dataset as Dataset
    from dllm2rec.data import Examples as Examples
    from dllm2rec.data import GlobalTimeSplit as GlobalTimeSplit
    from dllm2rec.data import LeaveOneOutSplit as LeaveOneOutSplit
    from dllm2rec.data import PaperSplit as PaperSplit
    from dllm2rec.distillation.cd import CDSettings as CDSettings
    from dllm2rec.distillation.dcd import DCDSettings as DCDSettings
    from dllm2rec.distillation.hint import HintSettings as HintSettings
    from dllm2rec.distillation.htd import HTDSettings as HTDSettings
    from dllm2rec.distillation.kar import KARSettings as KARSettings
    from dllm2rec.distillation.llm_cf import LLMCFSettings as LLMCFSettings
    from dllm2rec.distillation.methods import NoMethod as NoMethod
    from dllm2rec.distillation.methods import VectorsMethod as VectorsMethod
    from dllm2rec.distillation.rd import RDSettings as RDSettings
    from dllm2rec.distillation.rrd import RRDSettings as RRDSettings
    from dllm2rec.distillation.settings import DLLM2RecSettings as DLLM2RecSettings
    from dllm2rec.distillation.soft_labels import SoftLabelSettings as SoftLabelSettings
    from dllm2rec.distillation.unkd import UnKDSettings as UnKDSettings
    from dllm2rec.evaluation.ranks import Ranks as Ranks
    from dllm2rec.evaluation.ranks import rank_targets as rank_targets
    from dllm2rec.experiments.pipeline import ExperimentResult as ExperimentResult
    from dllm2rec.experiments.pipeline import SearchResult as SearchResult
    from dllm2rec.experiments.pipeline import run as run
    from dllm2rec.experiments.pipeline import tune as tune
    from dllm2rec.knowledge.schema import KnowledgeManifest as KnowledgeManifest
    from dllm2rec.knowledge.schema import Labels as Labels
    from dllm2rec.knowledge.store import Knowledge as Knowledge
    from dllm2rec.knowledge.store import KnowledgeWriter as KnowledgeWriter
    from dllm2rec.losses.bce import BCESettings as BCESettings
    from dllm2rec.losses.dros import DROSSettings as DROSSettings
    from dllm2rec.losses.gbce import GBCESettings as GBCESettings
    from dllm2rec.losses.sampled_softmax import SampledSoftmaxSettings as SampledSoftmaxSettings
    from dllm2rec.losses.softmax import SoftmaxSettings as SoftmaxSettings
    from dllm2rec.serving.bundle import Bundle as Bundle
    from dllm2rec.serving.recommender import Recommender as Recommender
    from dllm2rec.settings.config import TrainSettings as TrainSettings
    from dllm2rec.settings.config import load_config as load_config
    from dllm2rec.settings.dataset import DatasetSettings as DatasetSettings
    from dllm2rec.settings.teacher import BigRecTeacher as BigRecTeacher
    from dllm2rec.settings.teacher import EncoderTeacher as EncoderTeacher
    from dllm2rec.settings.teacher import KnowledgeSource as KnowledgeSource
    from dllm2rec.settings.teacher import Limits as Limits
    from dllm2rec.settings.teacher import MergedTeacher as MergedTeacher
    from dllm2rec.settings.teacher import ReferenceTeacher as ReferenceTeacher
    from dllm2rec.settings.teacher import RetrievalTeacher as RetrievalTeacher
    from dllm2rec.settings.teacher import TextTeacher as TextTeacher
    from dllm2rec.settings.update import UpdateSettings as UpdateSettings
    from dllm2rec.students.base import Student as Student
    from dllm2rec.students.caser import CaserSettings as CaserSettings
    from dllm2rec.students.gru4rec import GRU4RecSettings as GRU4RecSettings
    from dllm2rec.students.sasrec import SASRecSettings as SASRecSettings
    from dllm2rec.students.transformer import TransformerSettings as TransformerSettings
    from dllm2rec.teachers.contrastive import HeadSettings as HeadSettings
    from dllm2rec.teachers.ease import EASESettings as EASESettings
    from dllm2rec.teachers.references import BlendSettings as BlendSettings
    from dllm2rec.teachers.references import ItemKNNSettings as ItemKNNSettings
    from dllm2rec.teachers.references import PopularitySettings as PopularitySettings
    from dllm2rec.teachers.references import TextSettings as TextSettings
    from dllm2rec.teachers.retrieval_tuning import RetrievalTuningSettings as RetrievalTuningSettings
    from dllm2rec.teachers.texts import Counts as Counts
    from dllm2rec.teachers.tuning import TuningSettings as TuningSettings
    from dllm2rec.training import FitSettings as FitSettings
    from dllm2rec.workflow.answers import ask as ask
    from dllm2rec.workflow.answers import import_answers as import_answers
    from dllm2rec.workflow.building import load_student as load_student
    from dllm2rec.workflow.evaluating import evaluate as evaluate
    from dllm2rec.workflow.preparing import prepare as prepare
    from dllm2rec.workflow.runs import Evaluation as Evaluation
    from dllm2rec.workflow.runs import Run as Run
    from dllm2rec.workflow.search import Choice as Choice
    from dllm2rec.workflow.teaching import teach as teach
    from dllm2rec.workflow.teaching import teach_only_new as teach_only_new
    from dllm2rec.workflow.training import train as train
    from dllm2rec.workflow.updating import Update as Update
    from dllm2rec.workflow.updating import update as update

_HOMES = {
    "bundling.adding": ("Added", "add_items"),
    "bundling.baseline": ("BaselineExport", "export_baseline"),
    "bundling.batch": ("BatchDone", "recommend_all"),
    "bundling.exporting": ("Export", "export"),
    "comparison.comparing": ("compare",),
    "comparison.doctor": ("examine",),
    "comparison.examination": ("Examination",),
    "comparison.results": ("Comparison",),
    "core.errors": ("RefusedError", "UserError"),
    "data": ("Columns", "Dataset", "Examples", "GlobalTimeSplit", "LeaveOneOutSplit", "PaperSplit"),
    "distillation.cd": ("CDSettings",),
    "distillation.dcd": ("DCDSettings",),
    "distillation.hint": ("HintSettings",),
    "distillation.htd": ("HTDSettings",),
    "distillation.kar": ("KARSettings",),
    "distillation.llm_cf": ("LLMCFSettings",),
    "distillation.methods": ("NoMethod", "VectorsMethod"),
    "distillation.rd": ("RDSettings",),
    "distillation.rrd": ("RRDSettings",),
    "distillation.settings": ("DLLM2RecSettings",),
    "distillation.soft_labels": ("SoftLabelSettings",),
    "distillation.unkd": ("UnKDSettings",),
    "evaluation.ranks": ("Ranks", "rank_targets"),
    "experiments.pipeline": ("ExperimentResult", "SearchResult", "run", "tune"),
    "knowledge.schema": ("KnowledgeManifest", "Labels"),
    "knowledge.store": ("Knowledge", "KnowledgeWriter"),
    "losses.bce": ("BCESettings",),
    "losses.dros": ("DROSSettings",),
    "losses.gbce": ("GBCESettings",),
    "losses.sampled_softmax": ("SampledSoftmaxSettings",),
    "losses.softmax": ("SoftmaxSettings",),
    "serving.bundle": ("Bundle",),
    "serving.recommender": ("Recommender",),
    "settings.config": ("Config", "TrainSettings", "load_config"),
    "settings.dataset": ("DatasetSettings",),
    "settings.teacher": (
        "BigRecTeacher",
        "EncoderTeacher",
        "KnowledgeSource",
        "Limits",
        "MergedTeacher",
        "ReferenceTeacher",
        "RetrievalTeacher",
        "TextTeacher",
    ),
    "settings.update": ("UpdateSettings",),
    "students.base": ("Student",),
    "students.caser": ("CaserSettings",),
    "students.gru4rec": ("GRU4RecSettings",),
    "students.sasrec": ("SASRecSettings",),
    "students.transformer": ("TransformerSettings",),
    "teachers.contrastive": ("HeadSettings",),
    "teachers.ease": ("EASESettings",),
    "teachers.references": ("BlendSettings", "ItemKNNSettings", "PopularitySettings", "TextSettings"),
    "teachers.retrieval_tuning": ("RetrievalTuningSettings",),
    "teachers.texts": ("Counts",),
    "teachers.tuning": ("TuningSettings",),
    "training": ("FitSettings",),
    "workflow.answers": ("ask", "import_answers"),
    "workflow.building": ("load_student",),
    "workflow.evaluating": ("evaluate",),
    "workflow.preparing": ("prepare",),
    "workflow.runs": ("Evaluation", "Run"),
    "workflow.search": ("Choice",),
    "workflow.teaching": ("teach", "teach_only_new"),
    "workflow.training": ("train",),
    "workflow.updating": ("Update", "update"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605 - a list it is


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'dllm2rec' has no attribute '{name}'")
    return getattr(import_module(f"dllm2rec.{home}"), name)


def __dir__() -> list[str]:
    return __all__
