"""A validated interaction log becomes time-split examples in a dataset directory."""

from dllm2rec.data.dataset import Dataset, DatasetManifest, write_dataset
from dllm2rec.data.examples import Examples, Sequences
from dllm2rec.data.extension import extend
from dllm2rec.data.log import Columns, Log, read_log
from dllm2rec.data.sources import ml_100k
from dllm2rec.data.splits import GlobalTimeSplit, LeaveOneOutSplit, PaperSplit, Split, SplitSettings, TrainOn

__all__ = [
    "Columns",
    "Dataset",
    "DatasetManifest",
    "Examples",
    "GlobalTimeSplit",
    "LeaveOneOutSplit",
    "Log",
    "PaperSplit",
    "Sequences",
    "Split",
    "SplitSettings",
    "TrainOn",
    "extend",
    "ml_100k",
    "read_log",
    "write_dataset",
]
