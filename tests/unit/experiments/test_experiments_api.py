"""What `import dllm2rec` gives, and what it must not bring."""

import subprocess
import sys

HEAVY = ("torch", "polars", "transformers", "peft", "trl", "plotly")


def python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_brings_nothing_heavy() -> None:
    assert python(f"import sys, dllm2rec; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_training_needs_none_of_a_language_models_libraries() -> None:
    found = python(
        "import sys, dllm2rec; dllm2rec.train, dllm2rec.compare, dllm2rec.examine\n"
        "import dllm2rec.experiments.pipeline, dllm2rec.experiments.report.page\n"
        "print([m for m in ('transformers', 'peft', 'trl', 'datasets', 'huggingface_hub') if m in sys.modules])"
    )
    assert found == "[]"


def test_every_name_is_there() -> None:
    assert python("import dllm2rec; print([n for n in dllm2rec.__all__ if not hasattr(dllm2rec, n)])") == "[]"
    assert python("import dllm2rec; print(hasattr(dllm2rec, 'nothing'))") == "False"
