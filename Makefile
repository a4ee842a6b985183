# Two commands from a fresh machine: `make demo` and `make test`. All in .venv.

PYTHON ?= python3
# One more than two cores have: tests also wait for servers, browsers and other programs.
WORKERS ?= 3
BIN := .venv/bin

# Tests start many programs: each module is compiled once, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slow lint docs notebooks wheel models density-model clean

demo: .venv/demo.stamp
	$(BIN)/rhosight demo --out demo

# tests/conftest.py lets the longest files start first; xdist would order them otherwise.
test: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile \
		--no-loadscope-reorder

# Networks at full size, several processes, notebooks, and the code blocks of the documentation
# that take minutes; the wheel has a target of its own.
test-slow: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --ignore tests/test_wheel.py -n 2 \
		--dist loadfile

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# The documentation, as a folder `site` that needs no server.
docs: .venv/dev.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Of these, the notebooks and code blocks.
notebooks: .venv/dev.stamp
	$(BIN)/python -m pytest -m slow tests/test_notebooks.py tests/test_docs.py

# dist/*.whl, installed into an environment of its own, where it has to predict.
wheel: .venv/dev.stamp
	rm -rf dist
	$(BIN)/python -m build --wheel
	RHOSIGHT_WHEEL=$$(ls dist/*.whl) $(BIN)/python -m pytest -m slow tests/test_wheel.py

# Train the model of charge densities again: 10 minutes of one core, in 2 GB.
density-model: .venv/demo.stamp
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/density_prediction.py train src/rhosight/data/models/density
	cd src/rhosight/data/models && sha256sum */model.safetensors > SHA256SUMS

# Train the models of properties that come with the package again, and pin their new hashes.
models: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m rhosight.training.lesson src/rhosight/data/lesson.safetensors
	for name in structure structure+potential; do \
		$(BIN)/rhosight train mp-elastic --preset $$name --force \
			--out src/rhosight/data/models/$$name || exit 1; \
	done
	cd src/rhosight/data/models && sha256sum */model.safetensors > SHA256SUMS
	for name in best no-dft; do \
		$(BIN)/rhosight train mp-fcc --preset $$name --with-structure --force \
			--out src/rhosight/data/models/$$name || exit 1; \
	done
	cd src/rhosight/data/models && sha256sum */model.safetensors > SHA256SUMS

clean:
	rm -rf .venv demo dist site

# A new pip finds the versions in a third of the time of the one that Python brings.
.venv/python.stamp:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rhosight needs Python 3.11 or later")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --upgrade pip
	touch $@

.venv/demo.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[networks]'
	touch $@

# One installation for both: what the tests need holds what the demo needs.
.venv/dev.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch .venv/demo.stamp $@
