# Every target does its own set-up on a bare machine with Python 3.11 and pip.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all check scores bench clean

demo: $(VENV)/runtime.stamp ## learn the documentation on this machine, offline
	$(BIN)/hanlin demo

test: $(VENV)/dev.stamp check ## the default tests: at most four minutes on two cores
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(VENV)/dev.stamp check ## everything but what needs a GPU or the internet
	$(BIN)/python -m pytest -m "not gpu and not network"

check: $(VENV)/dev.stamp ## style, types, layers, budget
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/budget.py

scores: $(VENV)/dev.stamp ## trained scores on real data (HANLIN_DATA)
	$(BIN)/python -m benchmarks.perplexity
	$(BIN)/python -m benchmarks.letters
	$(BIN)/python -m benchmarks.languages
	$(BIN)/python -m benchmarks.tasks.pretraining runs/scores/texts
	$(BIN)/python -m benchmarks.tasks.reader runs/scores/rated
	test -d runs/scores/espeak-set || $(BIN)/python -m benchmarks.espeak runs/scores/espeak-set
	$(BIN)/python -m benchmarks.scores
	$(BIN)/python -m benchmarks.tasks.abstention runs/scores/squad
	$(BIN)/python -m benchmarks.tasks.zeroshot
	$(BIN)/python -m benchmarks.tasks.retrieval --read runs/scores/reader
	$(BIN)/python -m benchmarks.tasks.retrieval --pairs
	$(BIN)/python -m benchmarks.tasks.choice runs/languages
	$(BIN)/python -m benchmarks.tasks.geo
	$(BIN)/python -m benchmarks.speech.folds
	$(BIN)/python -m benchmarks.speech.heard runs/scores/espeak runs/scores/espeak-set/voices.jsonl \
		$${HANLIN_DATA:-../shared}/data/speech/ljspeech_sample/ljspeech.tar.gz \
		$${HANLIN_DATA:-../shared}/data/speech/wenet_sample/two_utterances.tar
	$(BIN)/python -m benchmarks.recurrent

bench: $(VENV)/dev.stamp ## speed tables; the servers beside ours are built and installed first
	$(BIN)/python -m benchmarks.train
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.pairs
	$(BIN)/python -m benchmarks.tasks.classify
	$(PIP) -e ".[dev,bench]"
	$(BIN)/python -m benchmarks.serve

clean: ## forget the environment
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/dev.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e ".[dev]"
	touch $@ $(VENV)/runtime.stamp
