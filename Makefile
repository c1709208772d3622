# make demo    train two small networks on real data and write a report about them (under two minutes)
# make test    what a change must pass: ruff, mypy, doctests, tests
# make slow    the tests that take minutes
# make bench   every benchmark in benchmarks/
# make docs    the examples in the docstrings, and every link and name in the documents
# make lint    format and fix what can be fixed, then ruff and mypy
# make clean   remove the environment, caches and builds; runs/ stays
#
# PYTHON=python3.12        another interpreter (3.11 or newer)
# TORCH_BACKEND=cpu        another build of PyTorch: cpu, auto, cu126, ... (see `uv pip install --help`);
#                          without it pip's own build comes, which on Linux brings several GB of CUDA
# WORKERS=4                processes that run the tests

PYTHON ?= python3
TORCH_BACKEND ?=
WORKERS ?= 2
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
export MPLBACKEND := agg
# A process that may not keep its bytecode compiles PyTorch anew: seconds for each process that a test starts.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
# The environment is made again when the requirements, the interpreter, the build of PyTorch or this folder's place change.
KEY := $(shell { cat pyproject.toml constraints.txt; pwd; echo '$(PYTHON) $(TORCH_BACKEND)'; } | cksum | tr -dc 0-9)
RUN_STAMP := .venv/run-$(KEY)
TEST_STAMP := .venv/test-$(KEY)

.PHONY: demo test slow bench docs lint clean
.DELETE_ON_ERROR:

# The demo's networks are small: on two cores one thread is faster than two, and far faster where other work is going on.
demo: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),1)
demo: $(RUN_STAMP)
	.venv/bin/lossatlas study --preset digits --out runs/digits

test: $(TEST_STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -n $(WORKERS) --dist loadfile -rs

slow: $(TEST_STAMP)
	@echo "$(PY) -m pytest -rs -m slow"; $(PY) -m pytest -n $(WORKERS) --dist loadfile -rs -m slow || { \
	  status=$$?; [ $$status = 5 ] || exit $$status; echo "There is no slow test yet."; }

bench: $(TEST_STAMP)
	@set -e; found=; for file in benchmarks/*.py; do \
	  [ -f "$$file" ] || continue; found=yes; echo "$(PY) $$file"; $(PY) "$$file"; \
	done; [ -n "$$found" ] || echo "There is no benchmark yet: benchmarks/ holds no .py file."

docs: $(TEST_STAMP)
	$(PY) -m pytest -rs src/lossatlas tests/test_docs_links.py

lint: $(TEST_STAMP)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .
	$(PY) -m mypy

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Install lossatlas and EXTRAS into .venv, at the versions of constraints.txt; by uv, which takes a third of pip's time, or else by pip.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "lossatlas needs Python 3.11 or newer; '$(PYTHON)' is not. Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@version='import pip, sys; print(sys.version)'; \
	[ "$$($(PY) -c "$$version" 2>/dev/null)" = "$$($(PYTHON) -c 'import sys; print(sys.version)')" ] || { \
	  echo "Making .venv"; $(PYTHON) -m venv --clear .venv; }
	@$(PY) -m uv --version >/dev/null 2>&1 || $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt uv || true
	@echo "Installing lossatlas$(EXTRAS) into .venv"; \
	if $(PY) -m uv --version >/dev/null 2>&1; then \
	  [ -w "$${HOME:-/}" ] || export UV_NO_CACHE=1; \
	  $(PY) -m uv pip install --quiet --python $(PY) $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND)) -c constraints.txt -e '.$(EXTRAS)'; \
	else \
	  $(if $(TORCH_BACKEND),echo "TORCH_BACKEND needs uv and uv could not be installed: leave it out or repair the network." >&2; exit 2;) \
	  echo "uv could not be installed: pip installs instead, which takes longer."; \
	  $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'; \
	fi
endef

$(RUN_STAMP):
	$(install)
	@touch $(RUN_STAMP)

$(TEST_STAMP): EXTRAS := [test,dev]
$(TEST_STAMP):
	$(install)
	@touch $(RUN_STAMP) $(TEST_STAMP)
