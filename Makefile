# make demo [IMAGES=/path]   set up, then cluster the demo images (or your own) and say where the report is
# make test                  set up (Chromium too, where root may apt-get it), then run the tests
# make lint                  set up, then ruff, mypy --strict, the import contract and svelte-check
# make bench NAME=silhouette run one of the measurements under bench/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Bytecode is made on all cores, where pip would make it on one. Packages have files for other Pythons too: no failure.
INSTALL := $(BIN)/pip install --quiet --no-compile
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null || true

.PHONY: demo test lint bench clean chromium

demo: $(VENV)/.runtime
ifdef IMAGES
	$(BIN)/shoal cluster "$(IMAGES)"
else
	$(BIN)/shoal demo
endif

test: chromium $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file bench/mypy.ini
	$(BIN)/lint-imports
	$(BIN)/python hatch_build.py run check

bench: $(VENV)/.dev
	$(BIN)/python bench/$(NAME).py

# What the page is tested in. Asked for first, so that nothing has been waited for when it cannot be had.
chromium:
	@command -v chromium > /dev/null \
	|| { test "$$(id -u)" = 0 && command -v apt-get > /dev/null && apt-get update -qq \
		&& apt-get install -qq --yes --no-install-recommends chromium > /dev/null; } \
	|| { echo "make test needs Chromium on the PATH (sudo apt-get install chromium, or your system's package)" >&2; exit 1; }

clean:
	rm -rf $(VENV) demo.shoal

$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	$(COMPILE)
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(INSTALL) --editable '.[dev]'
	$(COMPILE)
	touch $@
