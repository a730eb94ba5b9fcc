"""Distil a large language model recommender into a small sequential one (DLLM2Rec, arXiv:2405.00338).

The verbs of the command line as functions, and the settings they take. Nothing heavy is imported before it is used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or onnxruntime reports what it runs, and where, to its makers

if TYPE_CHECKING:
    from dllm2rec.bundling.adding import add_items
    from dllm2rec.bundling.batch import recommend_all
    from dllm2rec.bundling.counting import export_counting
    from dllm2rec.bundling.exporting import export
    from dllm2rec.comparison.comparing import compare
    from dllm2rec.comparison.doctor import examine
    from dllm2rec.core.errors import UserError
    from dllm2rec.data import Columns, Dataset, GlobalTimeSplit, LeaveOneOutSplit, PaperSplit
    from dllm2rec.distillation.cd import CDSettings
    from dllm2rec.distillation.dcd import DCDSettings
    from dllm2rec.distillation.hint import HintSettings
    from dllm2rec.distillation.htd import HTDSettings
    from dllm2rec.distillation.kar import KARSettings
    from dllm2rec.distillation.llm_cf import LLMCFSettings
    from dllm2rec.distillation.methods import NoMethod, VectorsMethod
    from dllm2rec.distillation.rd import RDSettings
    from dllm2rec.distillation.rrd import RRDSettings
    from dllm2rec.distillation.settings import DLLM2RecSettings
    from dllm2rec.distillation.soft_labels import SoftLabelSettings
    from dllm2rec.distillation.unkd import UnKDSettings
    from dllm2rec.experiments.pipeline import run, tune
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.losses.bce import BCESettings
    from dllm2rec.losses.dros import DROSSettings
    from dllm2rec.losses.gbce import GBCESettings
    from dllm2rec.losses.sampled_softmax import SampledSoftmaxSettings
    from dllm2rec.losses.softmax import SoftmaxSettings
    from dllm2rec.serving.bundle import Bundle
    from dllm2rec.serving.recommender import Recommender
    from dllm2rec.settings.config import CellSettings, load_config
    from dllm2rec.settings.dataset import DatasetSettings
    from dllm2rec.settings.teacher import (
        BigRecTeacher,
        EncoderTeacher,
        KnowledgeSource,
        Limits,
        MergedTeacher,
        ReferenceTeacher,
        RetrievalTeacher,
        TextTeacher,
    )
    from dllm2rec.settings.update import UpdateSettings
    from dllm2rec.students.caser import CaserSettings
    from dllm2rec.students.gru4rec import GRU4RecSettings
    from dllm2rec.students.sasrec import SASRecSettings
    from dllm2rec.students.transformer import TransformerSettings
    from dllm2rec.teachers.contrastive import HeadSettings
    from dllm2rec.teachers.ease import EASESettings
    from dllm2rec.teachers.references import BlendSettings, ItemKNNSettings, PopularitySettings, TextSettings
    from dllm2rec.teachers.retrieval_tuning import RetrievalTuningSettings
    from dllm2rec.teachers.texts import Counts
    from dllm2rec.teachers.tuning import TuningSettings
    from dllm2rec.training import FitSettings
    from dllm2rec.workflow.evaluating import evaluate
    from dllm2rec.workflow.preparing import prepare
    from dllm2rec.workflow.runs import Run
    from dllm2rec.workflow.teaching import teach, teach_only_new
    from dllm2rec.workflow.training import train
    from dllm2rec.workflow.updating import update

__all__ = [
    "BCESettings",
    "BigRecTeacher",
    "BlendSettings",
    "Bundle",
    "CDSettings",
    "CaserSettings",
    "CellSettings",
    "Columns",
    "Counts",
    "DCDSettings",
    "DLLM2RecSettings",
    "DROSSettings",
    "Dataset",
    "DatasetSettings",
    "EASESettings",
    "EncoderTeacher",
    "FitSettings",
    "GBCESettings",
    "GRU4RecSettings",
    "GlobalTimeSplit",
    "HTDSettings",
    "HeadSettings",
    "HintSettings",
    "ItemKNNSettings",
    "KARSettings",
    "Knowledge",
    "KnowledgeSource",
    "LLMCFSettings",
    "LeaveOneOutSplit",
    "Limits",
    "MergedTeacher",
    "NoMethod",
    "PaperSplit",
    "PopularitySettings",
    "RDSettings",
    "RRDSettings",
    "Recommender",
    "ReferenceTeacher",
    "RetrievalTeacher",
    "RetrievalTuningSettings",
    "Run",
    "SASRecSettings",
    "SampledSoftmaxSettings",
    "SoftLabelSettings",
    "SoftmaxSettings",
    "TextSettings",
    "TextTeacher",
    "TransformerSettings",
    "TuningSettings",
    "UnKDSettings",
    "UpdateSettings",
    "UserError",
    "VectorsMethod",
    "add_items",
    "compare",
    "evaluate",
    "examine",
    "export",
    "export_counting",
    "load_config",
    "prepare",
    "recommend_all",
    "run",
    "teach",
    "teach_only_new",
    "train",
    "tune",
    "update",
]

_HOMES = {
    "bundling.adding": ("add_items",),
    "bundling.batch": ("recommend_all",),
    "bundling.counting": ("export_counting",),
    "bundling.exporting": ("export",),
    "comparison.comparing": ("compare",),
    "comparison.doctor": ("examine",),
    "core.errors": ("UserError",),
    "data": ("Columns", "Dataset", "GlobalTimeSplit", "LeaveOneOutSplit", "PaperSplit"),
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
    "experiments.pipeline": ("run", "tune"),
    "knowledge.store": ("Knowledge",),
    "losses.bce": ("BCESettings",),
    "losses.dros": ("DROSSettings",),
    "losses.gbce": ("GBCESettings",),
    "losses.sampled_softmax": ("SampledSoftmaxSettings",),
    "losses.softmax": ("SoftmaxSettings",),
    "serving.bundle": ("Bundle",),
    "serving.recommender": ("Recommender",),
    "settings.config": ("CellSettings", "load_config"),
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
    "workflow.evaluating": ("evaluate",),
    "workflow.preparing": ("prepare",),
    "workflow.runs": ("Run",),
    "workflow.teaching": ("teach", "teach_only_new"),
    "workflow.training": ("train",),
    "workflow.updating": ("update",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'dllm2rec' has no attribute '{name}'")
    return getattr(import_module(f"dllm2rec.{home}"), name)


def __dir__() -> list[str]:
    return __all__
