"""What `import dllm2rec` gives, and what it must not bring."""

import subprocess
import sys
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

import dllm2rec
from dllm2rec.settings.teacher import TeacherSettings

HEAVY = ("torch", "polars", "transformers", "peft", "trl", "plotly")


def python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_brings_nothing_heavy() -> None:
    assert python(f"import sys, dllm2rec; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "imported",
    [
        "dllm2rec; dllm2rec.train, dllm2rec.compare, dllm2rec.examine, dllm2rec.update, dllm2rec.run, dllm2rec.tune",
        "dllm2rec; dllm2rec.add_items, dllm2rec.recommend_all, dllm2rec.teach_only_new, dllm2rec.HeadSettings",
        "dllm2rec.experiments.pipeline, dllm2rec.reporting.report.page",
        "dllm2rec.settings.teacher, dllm2rec.workflow.teaching, dllm2rec.settings.manual",
        "dllm2rec; dllm2rec.BigRecTeacher, dllm2rec.RetrievalTeacher, dllm2rec.TuningSettings",
    ],
)
def test_a_language_models_libraries_come_with_a_language_model(imported: str) -> None:
    libraries = ("accelerate", "datasets", "huggingface_hub", "peft", "tokenizers", "transformers", "trl")
    assert python(f"import sys, {imported}\nprint([m for m in {libraries} if m in sys.modules])") == "[]"


def test_every_name_is_there() -> None:
    assert python("import dllm2rec; print([n for n in dllm2rec.__all__ if not hasattr(dllm2rec, n)])") == "[]"
    assert python("import dllm2rec; print(hasattr(dllm2rec, 'nothing'))") == "False"


def test_every_settings_class_that_a_verb_takes_is_there() -> None:
    found: set[type] = set()
    waiting: list[Any] = [dllm2rec.TrainSettings, dllm2rec.DatasetSettings, dllm2rec.UpdateSettings, TeacherSettings]
    while waiting:
        one = waiting.pop()
        waiting += get_args(one)
        if isinstance(one, type) and one not in found and issubclass(one, BaseModel):
            found.add(one)
            waiting += get_type_hints(one, include_extras=True).values()
    assert len(found) > 40
    assert [one for one in found if getattr(dllm2rec, one.__name__, None) is not one] == []
