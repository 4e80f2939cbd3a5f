# Needs Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: race peers race-peers install front test test-slow lint types clean

install: $(STAMP)

# uv installs three to four times faster than pip; where it cannot be had, pip does the same work.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || echo "uv is not to be had, going on with pip"
	if test -x $(BIN)/uv; then \
	  UV_FIND_LINKS="$$PIP_FIND_LINKS" $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'; \
	fi
	touch $@

front: install
	$(BIN)/lrf-search run examples/first-front.yaml

test: install lint types
	$(BIN)/python -m pytest -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

# Replays searches on known answers; what is in benchmarks/race/results is not run again. GP needs minutes a search.
RACE := $(BIN)/python -m benchmarks.race.race
DIGITS := benchmarks/tables/digits.parquet
race: install
	$(RACE) run $(DIGITS) --contestants random nsga2 --trials 800
	$(RACE) run $(DIGITS) --contestants tpe --trials 300
	$(RACE) run $(DIGITS) --contestants priced oracle --trials 150
	$(RACE) run $(DIGITS) --contestants gp --trials 60 --seeds 5
	$(RACE) run $(DIGITS) --contestants "random + halving" "tpe + halving" "priced + halving"
	$(RACE) run nb201:cifar10 --contestants random --trials 2000
	$(RACE) run nb201:cifar10 --contestants nsga2 --trials 800
	$(RACE) run nb201:cifar10 --contestants tpe --trials 300
	$(RACE) run nb201:cifar10 --contestants priced --trials 100
	$(RACE) run nb201:cifar10 --contestants gp --trials 100 --seeds 5
	$(RACE) run zdt1 zdt2 zdt3 zdt6 dtlz1 dtlz2 dtlz7 --contestants random nsga2 tpe "priced, no prices" --trials 60
	$(RACE) page

# Ax and Syne Tune, to race against. Syne Tune comes alone: what it would add (xgboost, NVIDIA's NCCL) is not used.
peers: install
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[race]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps syne-tune

race-peers: peers
	$(RACE) run $(DIGITS) --contestants moasha "moasha, grace 3" mo-rea
	$(RACE) run nb201:cifar10 --contestants mo-rea --trials 800
	$(RACE) run zdt1 zdt2 zdt3 zdt6 dtlz1 dtlz2 dtlz7 --contestants mo-rea --trials 60
	$(RACE) run $(DIGITS) --contestants ax "ax, told the scale" --trials 50 --seeds 3
	$(RACE) page
