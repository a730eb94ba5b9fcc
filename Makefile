# Everything runs through uv in ./.venv; uv itself is installed into ./.uv when the machine has none.
SHELL := /bin/bash
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen --all-extras

.PHONY: help install demo test check experiments format

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

.uv/bin/uv:
	python3 -m venv .uv && .uv/bin/python -m pip install --quiet uv

install: $(filter .uv/bin/uv,$(UV)) ## install the pinned environment into .venv
	$(UV) sync --frozen --all-extras

demo: install ## the main job on real data with a real language model, 13 to 30 minutes on two cores
	$(RUN) dllm2rec run configs/demo.toml

test: install ## everything that CI runs
	$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder

check: install ## format, lint, types, import layers
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports

format: install ## rewrite the files as `make check` wants them
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

experiments: install ## the slow, resumable experiments behind docs/results.md
	$(RUN) dllm2rec run configs/toys.toml
	$(RUN) dllm2rec run configs/all-teachers.toml --jobs 2
	$(RUN) dllm2rec run configs/methods.toml --jobs 2
	$(RUN) dllm2rec run configs/texts.toml --out runs/toys-methods --jobs 2
	$(RUN) dllm2rec run configs/movielens.toml
	for name in gain ablation; do \
	    mkdir -p runs/toys-$$name && \
	    cp -ru runs/toys-methods/experiment.json runs/toys-methods/dataset-* runs/toys-methods/knowledge-* runs/toys-$$name && \
	    $(RUN) dllm2rec run configs/$$name.toml --jobs 2 || exit 1; \
	done
