"""The README's commands and its Python, run as they stand, with the real packaged models, on a small log."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytestmark = pytest.mark.timeout(1200)
"""Thirty processes that import torch, which takes a second on one machine and ten on another."""
ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LESS = {
    "bigrec": " --set tuning.examples=8 --set tuning.epochs=1 --set title_tokens=8",
    "retrieval": " --set tuning.sequences=0 --set title_tokens=8",
    "configs/best.toml": " --set seeds=[1] --set training.epochs=1",
}
"""The same models, tuned on less, or trained for less long: a test has no quarter of an hour."""
KINDS = ("robot", "puzzle", "train set", "doll house", "board game")


def block(language: str) -> str:
    """All blocks of a language, one after the other."""
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found, f"README has no {language} block"
    return "".join(found)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with log.csv and items.csv: 60 users who stay with one kind of toy."""
    folder = tmp_path_factory.mktemp("readme")
    generator = np.random.default_rng(0)
    items = [{"item_id": f"i{n}", "title": f"{KINDS[n % 5]} number {n}"} for n in range(30)]
    events = [
        {
            "user_id": f"u{user}",
            "item_id": f"i{5 * int(generator.integers(6)) + user % 5}",
            "timestamp": 100 * step + user,
        }
        for user in range(60)
        for step in range(4)
    ]
    pl.DataFrame(items).write_csv(folder / "items.csv")
    pl.DataFrame(events).write_csv(folder / "log.csv")
    return folder


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done.stdout


def answer(folder: Path) -> None:
    """Stand in for a language model elsewhere: what comes next is called as what came last."""
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    answers = [{"example_id": one["example_id"], "text": one["titles"][-1]} for one in questions]
    (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))


@pytest.fixture(scope="module")
def finished(workplace: Path) -> Path:
    """The same directory after the README's commands."""
    (workplace / "configs").symlink_to(ROOT / "configs")
    for line in (
        block("bash").replace("\\\n", "").replace("--llm NAME --limit", "--llm smollm2-135m --limit").splitlines()
    ):
        if " --import " in line:
            answer(workplace / "work")
        smaller = next((less for word, less in LESS.items() if f" {word} " in line), "")
        run(["bash", "-c", line + smaller], workplace)
    return workplace


def test_the_commands_of_the_readme_run(finished: Path) -> None:
    assert (finished / "work" / "report.html").stat().st_size > 100_000


def test_a_bundle_serves_in_an_environment_of_its_own(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, install, recommend, serve, ask = block("sh").splitlines()
    port = free_port()
    for line in (make, install.replace("/path/to/clone", str(ROOT)), recommend):
        run(["bash", "-c", line], finished)
    server = subprocess.Popen([*serve.removesuffix(" &").split(), "--port", str(port)], cwd=finished)
    try:
        patient = ask.replace("curl", "curl --silent --retry 30 --retry-connrefused --retry-delay 1")
        answer = json.loads(run(["bash", "-c", patient.replace("8000", str(port))], finished))
    finally:
        server.terminate()
    assert server.wait(30) == 0
    assert len(answer["results"][0]["items"]) == 5
    (packages,) = (finished / "serving" / "lib").glob("python3*/site-packages")
    installed = {file.name for file in packages.iterdir()}
    assert not installed & {"torch", "transformers", "polars", "pandas", "scipy"}
    size = sum(file.stat().st_size for file in packages.rglob("*") if "pip" not in file.parts) / 1e6
    ours, bare = (
        min(seconds_to_import(finished / "serving" / "bin" / "python", modules) for _ in range(5))
        for modules in ("dllm2rec.serving.recommender", "numpy, onnxruntime")
    )
    with capsys.disabled():
        print(
            f"\nserving: {size:.0f} MB installed, imported in {ours:.2f} s, numpy and onnxruntime alone in {bare:.2f} s"
        )
    assert ours - bare < 0.1


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def seconds_to_import(python: Path, modules: str) -> float:
    """Of the processor, which others at work on the machine do not lengthen."""
    program = f"import time, {modules}; print(time.process_time())"
    return float(subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout)


def test_the_python_of_the_readme_runs(workplace: Path) -> None:
    program = block("python")
    assert len([line for line in program.splitlines() if line and "import" not in line]) <= 10
    assert run([sys.executable, "-c", program], workplace).strip()


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page: Path) -> set[str]:
    """Return how a page's headings are linked to."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_docs_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
