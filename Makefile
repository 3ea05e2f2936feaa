# make help lists the targets. Everything is installed into .venv; nothing outside this directory is touched.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
EXIT   ?=
DIST   ?= dist
# The tests start hundreds of Python processes, which would compile every module again without bytecode files.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help venv demo test check lint unit integration system package-under-test bench bench-gateway html generate
.PHONY: lock clean
.PHONY: deb rpm apt-repo dnf-repo arm64-check

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/run.stamp: requirements/run.lock pyproject.toml
	@echo "installing llama-orch into $(VENV) (once, about half a minute)"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 has no venv; on Debian: apt install python3-venv" >&2; exit 69; }
	@$(PY) -m pip install -q --disable-pip-version-check --use-pep517 --require-hashes -r requirements/run.lock
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . 2>/dev/null || \
	 $(PY) -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements/dev.lock
	@echo "installing what the tests need"
	@$(PY) -m pip install -q --disable-pip-version-check --use-pep517 --require-hashes -r requirements/dev.lock
	@$(LINK_SYSTEMD)
	@touch $@

# The distribution's module, as in the package: that of PyPI would have to be compiled.
SYSTEMD_MODULE = /usr/lib/python3/dist-packages/systemd
LINK_SYSTEMD   = if [ -d $(SYSTEMD_MODULE) ]; then \
  ln -sfn $(SYSTEMD_MODULE) "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/systemd"; fi

venv: $(VENV)/dev.stamp ## install into .venv, tools for development included

$(VENV)/demo.stamp: $(VENV)/run.stamp requirements/demo.lock
	@echo "installing what makes the demo's model"
	@$(PY) -m pip install -q --disable-pip-version-check --use-pep517 --require-hashes -r requirements/demo.lock
	@touch $@

demo: $(VENV)/demo.stamp ## serve a small model on this machine's CPU; EXIT=1 stops after one answer
	@$(PY) -m tools.demo $(if $(EXIT),--exit)

test: $(VENV)/dev.stamp ## everything: linters, unit, integration and system tests
	@$(MAKE) --no-print-directory --jobs=3 lint package-under-test unit
	@$(PYTEST_DAEMONS) tests/system tests/integration

SHELL_SCRIPTS = .ci/run units/llama-orch-generator $(wildcard packaging/*.sh) packaging/rpm/python3 \
                packaging/debian/tests/smoke $(addprefix packaging/debian/llama-orch.,preinst postinst postrm prerm)

lint: $(VENV)/dev.stamp ## ruff, mypy --strict, generated files, shellcheck
	@$(PY) -m ruff check -q . && $(PY) -m ruff format --check -q . && $(PY) -m mypy
	@$(PY) -m tools.generate --check
	@if command -v shellcheck >/dev/null; then shellcheck $(SHELL_SCRIPTS); else \
	  echo "lint: shellcheck is not here, so shell scripts are not checked (apt install shellcheck)"; test -z "$$CI"; fi

check: $(VENV)/dev.stamp lint ## for daily work: linters, types, and the unit tests of what changed
	@$(PYTEST) --dist worksteal $$($(PY) -m tools.changed_tests)

# JOBS tests run side by side; tests that share a machine or a daemon stay in one of the processes
JOBS   ?=
PYTEST  = $(PY) -m pytest -q -n $(or $(JOBS),$$(($$(nproc) + 1))) --durations=20

unit: $(VENV)/dev.stamp ## unit tests
	@$(PYTEST) --dist worksteal tests/unit

# These wait for daemons much of the time, so there are two processes more than processors.
PYTEST_DAEMONS = $(PY) -m pytest -q -n $(or $(JOBS),$$(($$(nproc) + 2))) --durations=20 --dist loadfile

integration: $(VENV)/dev.stamp ## real daemons and a real engine, without systemd
	@$(PYTEST_DAEMONS) tests/integration

system: $(VENV)/dev.stamp ## the .deb in booted Debian 12 and 13; wants root and systemd-nspawn
	@$(PYTEST_DAEMONS) tests/system

# The linters use one processor for a minute; beside them the .deb is built and the unit tests run.
package-under-test: $(VENV)/dev.stamp
	@$(PY) -m tests.system.lab.package

bench: $(VENV)/dev.stamp ## figures, not tests
	@$(PY) -m tests.bench

QUICK ?=
bench-gateway: $(VENV)/dev.stamp ## queen-rbee beside nginx, sglang-router and LiteLLM; QUICK=1 for shorter loads
	@$(PY) -m tests.bench.gateway $(if $(QUICK),--quick)

ARCH   ?= amd64
deb: ## one .deb for Debian 12 and 13 , into dist/; ARCH="amd64 arm64" for both architectures
	@for arch in $(ARCH); do ARCH=$$arch packaging/build_deb.sh $(DIST) || exit; done

rpm: ## one .rpm for Fedora 42+ and EL 9 and 10, likewise
	@for arch in $(ARCH); do ARCH=$$arch packaging/build_rpm.sh $(DIST) || exit; done

apt-repo: ## a repository of the .debs in dist/, signed by the key REPO_KEY=
	@packaging/make_repo.sh apt $(DIST)

dnf-repo: ## a repository of the .rpms in dist/, signed by the key REPO_KEY=
	@packaging/make_repo.sh dnf $(DIST)

arm64-check: $(VENV)/dev.stamp ## import the compiled modules for arm64, under qemu-user
	@$(PYTEST) -n 0 tests/arm64

html: ## the manual as HTML, in build/html; a queen-rbee of this tree serves it at /docs/
	@$(PYTHON) packaging/manual_html.py man build/html

generate: $(VENV)/dev.stamp ## what is made from declarations: environment files and their manual, journal catalog, JSON schema
	@$(PY) -m tools.generate

LOCK = uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
       --no-annotate pyproject.toml

lock: ## renew the lock files; wants uv
	$(LOCK) -o requirements/run.lock
	$(LOCK) --group demo -o requirements/demo.lock
	$(LOCK) --group dev -o requirements/dev.lock

clean: ## remove what was built here
	rm -rf $(VENV) build dist .runtime .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info daemons/*.egg-info
