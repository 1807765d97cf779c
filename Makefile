# make run and make test work from a bare clone; each makes the environment first where it has to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PNEUMONET_PORT ?= 7860
# Tests start servers, browsers and clusters: two at once keep two cores busy.
TEST_PROCESSES ?= 2
VERSION ?= 1.0.0
export PNEUMONET_PORT

.PHONY: run test lint audit validators bench weights clean

run: $(VENV)/.app
	@exec $(BIN)/python app.py

test: lint
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy pneumonet app.py scripts
	$(BIN)/lint-imports

# The stamps hold the environment to the requirements: a changed pin installs again, an unchanged one costs nothing.
$(VENV)/.python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "PneumoNet needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.app: requirements.txt constraints.txt | $(VENV)/.python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	touch $@

# Asks PyPI for known holes; what it could not ask about counts as a failure.
audit: $(VENV)/.audit
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

$(VENV)/.audit: requirements-audit.txt | $(VENV)/.python
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.txt
	touch $@

# The FHIR validator of tests/reports/test_fhir.py is a package of npm; without it that one test is skipped.
validators:
	@command -v npm >/dev/null || { echo "No npm on this machine: apt-get install npm. Its test stays skipped."; exit 1; }
	@npm install --no-audit --no-fund --no-package-lock --prefix tests/reports || \
		{ echo "npm could not install the FHIR validator. Its test stays skipped."; exit 1; }

clean:
	rm -rf $(VENV)

weights: $(VENV)/.dev
	$(BIN)/python scripts/make_weights.py --version $(VERSION)

bench: $(VENV)/.dev
	$(BIN)/python scripts/benchmark.py
