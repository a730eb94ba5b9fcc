"""One `fit`: a student, a loss and a list of distillers; validation decides when it ends."""

from dllm2rec.training.loop import FitSettings, fit

__all__ = ["FitSettings", "fit"]
