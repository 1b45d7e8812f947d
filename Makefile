# Everything runs in .venv, made on first use from pyproject.toml and the tested versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CODE := hf_distilhubert conversion finetune model_card demo benchmarks docs notebooks tests
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test lint format docs bench clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name it with PYTHON=…" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# DATA=folder uses recordings (a folder with metadata.csv) in place of the demo's own speech.
demo: $(READY)
	$(BIN)/python -m demo.run $(if $(DATA),--data '$(DATA)')

test: lint
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

# The theme's notice that its maintenance ends in 2027 is no warning about these pages.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(READY)
	$(BIN)/python -m benchmarks.distillation_step
	$(BIN)/python -m benchmarks.finetuning_step
	$(BIN)/python -m benchmarks.length_batches --data '$(if $(DATA),$(DATA),runs/demo/spoken/synthetic-speech)'
	$(BIN)/python -m benchmarks.padding_waste --data '$(if $(DATA),$(DATA),runs/demo/spoken/synthetic-speech)'
	$(BIN)/python -m benchmarks.transcription --data '$(if $(DATA),$(DATA),runs/demo/spoken/synthetic-speech)' --clips 10
	$(BIN)/python -m benchmarks.memory --data '$(if $(DATA),$(DATA),runs/demo/spoken/synthetic-speech)'

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site runs/demo
