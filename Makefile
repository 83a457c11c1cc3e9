PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
.DEFAULT_GOAL = help

.PHONY: env help lock test-newest test-oldest demo wheel-check reproduce-tables leaderboard matrix feature-table test test-devices device-table gpu-proof gpu-rehearsal test-slow test-learning proof learn learning-page trained-page test-goldens test-faults benchmark docs model-table quality gallery notebook release lint format

comma := ,
space := $() $()
listed = $(subst $(space),$(comma),$(strip $(1)))
said = $(subst $(space),$(comma) ,$(strip $(1)))
worded = $(subst $(comma),$(space),$(1))

# What each target reads from the command line; a variable that no target of a command reads would change nothing, so it is refused.
ON_THE_SIDE = PYTHON VENV
VARIABLES_reproduce-tables = TABLE BUDGET SEEDS DATA_ROOT LAUNCHER JOBS OUTPUTS
VARIABLES_leaderboard = MINUTES METHODS DATA_ROOT LAUNCHER JOBS OUTPUTS
VARIABLES_matrix = MODELS JOBS
VARIABLES_device-table = RECIPES
VARIABLES_gpu-proof = MINUTES DATA_ROOT
VARIABLES_test-learning = JOBS
VARIABLES_proof = METHOD DATA_ROOT OUTPUTS
VARIABLES_learn = NAMES
VARIABLES_trained-page = OUTPUTS
VARIABLES_test-faults = TRIES
VARIABLES_model-table = MODELS
VARIABLES_quality = NAME CHECKPOINT DATA_ROOT SETTINGS
VARIABLES_gallery = DATA_ROOT
GOALS = $(or $(MAKECMDGOALS),help)
READ = $(sort $(foreach goal,$(GOALS),$(VARIABLES_$(goal))))
TYPED = $(filter-out MAKE%,$(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
UNREAD = $(filter-out $(ON_THE_SIDE) $(READ),$(TYPED))
ifneq ($(strip $(UNREAD)),)
  $(error make $(GOALS) does not read $(call said,$(UNREAD)); it reads $(call said,$(READ) $(ON_THE_SIDE)): see make help)
endif

TABLE ?= all
BUDGET ?= quick
SEEDS ?= 1
DATA_ROOT ?=
LAUNCHER ?= joblib
JOBS ?= 2
OUTPUTS ?= outputs

# Versions come from requirements.lock, so that the environment is the same today and in a year; pyproject.toml says what is supported.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock -e ".[dev]"
	touch $(STAMP)

# Installs rsdiff and what it needs into .venv, with the versions of requirements.lock: begin here.
env: $(STAMP)

# Lists what make can do (this text).
help:
	@awk '/^# /{text = text substr($$0, 3) " "; next} \
	  /^[a-z-]+:/{ \
	    split($$0, name, ":"); count = split(text, words, " "); line = sprintf("%-17s", name[1]); \
	    for (i = 1; i <= count; i++) { \
	      if (length(line) + 1 + length(words[i]) > 100) { print line; line = sprintf("%17s", "") } \
	      line = line " " words[i] \
	    } \
	    if (count) print line \
	  } \
	  {text = ""}' Makefile

LOCKING = .venv-lock
## Versions only: no local parts such as +cu130 and no hashes, so that the registry and its mirrors, CPU and CUDA builds, serve the same lock.
## The CUDA libraries are left out, because each build of PyTorch names its own.
# Renews requirements.lock with the newest versions that pyproject.toml allows, and installs them.
lock:
	rm -rf $(LOCKING)
	$(PYTHON) -m venv $(LOCKING)
	$(LOCKING)/bin/python -m pip install --quiet -e ".[dev]"
	$(LOCKING)/bin/python -m pip freeze --exclude-editable > $(LOCKING)/frozen
	sed -E 's/\+[A-Za-z0-9.]+$$//' $(LOCKING)/frozen \
	  | grep -E '^[A-Za-z0-9._-]+==' | grep -Ev '^(nvidia-|cuda-|triton==)' > $(LOCKING)/requirements.lock
	mv $(LOCKING)/requirements.lock requirements.lock
	rm -rf $(LOCKING)
	$(MAKE) env
	$(BIN)/python -m pip check

# Runs all tests with the newest supported versions, in an environment of their own.
test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager -e ".[dev]"
	touch .venv-newest/.installed
	$(MAKE) test VENV=.venv-newest

# Runs all tests with the oldest supported versions, in an environment of their own.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/uv pip compile --quiet --resolution lowest-direct --extra dev --no-annotate --no-header pyproject.toml \
	  --output-file .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --constraint .venv-oldest/oldest.txt -e ".[dev]"
	touch .venv-oldest/.installed
	$(MAKE) test VENV=.venv-oldest

# Shows rsdiff without images of yours: evaluates weights of the zoo on generated scenes, trains them on these for a minute, and writes a
# report of each and a page of both.
demo: $(STAMP)
	$(BIN)/python run.py task=evaluate checkpoint=zoo:any_scale dataset=synthetic dataset.size=128
	$(BIN)/python run.py experiments=demo/fine_tune
	$(BIN)/python run.py task=board

# Builds the wheel and uses it as someone does who has no copy of the repository.
wheel-check: $(STAMP)
	.ci/wheel $(BIN)/python

# Makes the tables of papers again: TABLE=all or a name in sweeps/tables (several with commas), BUDGET=quick or paper, SEEDS, DATA_ROOT (the
# folder of your data sets), LAUNCHER (joblib, basic, submitit_slurm), JOBS (processes of joblib). The same command runs what is missing.
reproduce-tables: $(STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python run.py task=tables "task.tables=[$(call listed,$(TABLE))]" task.budget=$(BUDGET) task.seeds=$(SEEDS) \
	  task.data_root=$(or $(DATA_ROOT),null) outputs=$(OUTPUTS) hydra/launcher=$(LAUNCHER) \
	  $(if $(filter joblib,$(LAUNCHER)),hydra.launcher.n_jobs=$(JOBS))

METHODS ?=
MINUTES ?=
# Trains every method of sweeps/leaderboard.yaml for MINUTES (30) of processor time on the same images and compares them on the same others:
# DATA_ROOT, the folder that holds aid_small (without it, generated scenes); METHODS="RRDB,EDM" for some. The same command goes on where it
# was stopped; LAUNCHER and JOBS as above. The page is in outputs/leaderboard.
leaderboard: $(STAMP)
	RSDIFF_DATA=$(or $(DATA_ROOT),data) OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python run.py \
	  sweeps=leaderboard$(if $(DATA_ROOT),_aid) task.minutes=$(or $(MINUTES),30) "task.only=[$(METHODS)]" outputs=$(OUTPUTS) hydra/launcher=$(LAUNCHER) \
	  $(if $(filter joblib,$(LAUNCHER)),hydra.launcher.n_jobs=$(JOBS))

MODELS ?=
# Tests every allowed combination of model, kind of dataset and degradation with a training step and an image, and every model with every
# sampler: half an hour on two cores, a line per model, the counts at the end. JOBS processes; MODELS="rrdb sr3" for some of the models.
matrix: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -v -n $(JOBS) --dist load -m slow tests/runs/test_matrix.py \
	  $(if $(MODELS),-k "$(subst $(space), or ,$(strip $(call worded,$(MODELS))))")

# Writes the table of docs/features.md from that matrix.
feature-table: $(STAMP)
	$(BIN)/python -m documentation.matrix

## One test process per core and one thread each: PyTorch's threads and pytest's processes would fight over the cores.
# Runs the tests but for slow ones: half an hour on two cores.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow and not cuda" --ignore tests/benchmarks --ignore tests/devices
	$(MAKE) test-devices

# Runs every tiny model, degradation and metric on a pretended accelerator.
test-devices: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not cuda" tests/devices

RECIPES ?=
# Counts, without a GPU, what a step of the published sizes costs the host and the accelerator: minutes. RECIPES="sr3 ldcsr" for some.
device-table: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.devices.published $(call worded,$(RECIPES))

# Tests rsdiff on a GPU, offline: equality with a CPU, speed and memory at the published sizes, a training of MINUTES (60); writes
# gpu-proof.md. DATA_ROOT, the folder that holds aid_small, for real images.
gpu-proof: $(STAMP)
	$(BIN)/python -m tests.devices.gpu_proof --output gpu-proof.md --minutes $(or $(MINUTES),60) $(if $(DATA_ROOT),--data $(DATA_ROOT)/aid_small)

# Runs gpu-proof in small on a CPU, so that it fails for no trivial reason when a GPU is there.
gpu-rehearsal: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.devices.gpu_proof --device cpu --output gpu-rehearsal.md

# Runs the slow tests, minutes each: many hours.
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --ignore tests/benchmarks --ignore tests/devices
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/devices

# Tests every diffusion with a perfect network where the best answer is known, and that these tests find planted faults: minutes.
test-learning: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) tests/learning

METHOD ?= edm_sr
PROOFS = $(sort ldcsr $(patsubst experiments/%/small.yaml,%,$(wildcard experiments/*/small.yaml)))
# Trains a published objective and sampler on real images, in small: METHOD=edm_sr, sr3, blindsrsnf, diffbsr, blinddiff, ediffsr, idm, ldcsr, refdiff or scdm,
# DATA_ROOT the folder that holds aid_small and hsi (see docs/proof.md). The same command continues a training that was stopped.
proof: $(STAMP)
	@$(if $(filter $(METHOD),$(PROOFS)),:,echo "METHOD=$(METHOD) has no such training; choose among $(call said,$(PROOFS))." >&2; exit 2)
	@test -d $(or $(DATA_ROOT),data) || { echo "$(or $(DATA_ROOT),data) does not exist; give DATA_ROOT=FOLDER, the folder that holds aid_small and hsi, \
	see docs/proof.md." >&2; exit 2; }
	RSDIFF_DATA=$(or $(DATA_ROOT),data) $(BIN)/python run.py outputs=$(OUTPUTS) $(if $(filter ldcsr,$(METHOD)), \
	  -m experiments=ldcsr/small_stage1$(comma)ldcsr/small_stage2,experiments=$(METHOD)/small)

NAMES ?=
# Trains fresh networks where the best answer is known, two hours of one core: all, or NAMES="rrdb edm_sr". Goes on where it was stopped.
learn: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.learning.trainings $(call worded,$(NAMES))

# Writes docs/learning.md from what test-learning measures.
learning-page: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.learning.report perfect

# Writes docs/trained.md and the figures on the pages of methods from the records of make learn in outputs/learning.
trained-page: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.learning.report trained $(OUTPUTS)/learning

# Compares networks, losses, samplers, degradations and metrics with the published implementations.
test-goldens: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/goldens

TRIES ?= 200
# Tests kills and broken disks at many moments, dead processes, accidents, a sweep on Slurm, damaged files: hours, or TRIES tries.
test-faults: $(STAMP)
	OMP_NUM_THREADS=1 RSDIFF_FAULT_TRIES=$(TRIES) RSDIFF_FUZZ_EXAMPLES=$(TRIES) $(BIN)/python -m pytest -s tests/faults tests/hostile tests/runs/test_slurm.py

# Measures speed and memory as ratios; not part of the tests, because a busy machine proves nothing.
benchmark: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/benchmarks

# Builds the documentation in site/: pages of docs/, a reference made of the code; a broken link is an error.
docs: $(STAMP)
	PYTHONPATH=src NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# Writes the tables of docs/models.md: size, cost, code and weights of every published model. Measures what docs/model_costs.json lacks, and
# MODELS="sr3 liif" again: half a minute of a core each.
model-table: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m documentation.model_table $(call worded,$(MODELS))

# Adds a trained diffusion to docs/quality.md: quality against calls of the network, with its own sampler and with solvers of few steps.
# NAME=texture CHECKPOINT=RUN_FOLDER DATA_ROOT=FOLDER SETTINGS="dataset.test_limit=8"; an image costs some 130 calls.
quality: $(STAMP)
	$(BIN)/python -m documentation.quality_against_calls $(NAME) $(if $(CHECKPOINT),checkpoint=$(CHECKPOINT)) $(if $(DATA_ROOT),dataset.root=$(DATA_ROOT)) $(SETTINGS)

# Makes the pictures of docs/gallery.md from weights of the zoo on generated scenes and, with DATA_ROOT, on a Landsat scene (DATA_ROOT/scenes):
# a quarter of an hour.
gallery: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python docs/gallery.py $(DATA_ROOT)

# Writes the notebook in examples/ from its page.
notebook:
	$(PYTHON) docs/notebook.py

# Makes a release: the wheel in dist/, checked as a user installs it, and the site; see CONTRIBUTING.md.
release: $(STAMP) wheel-check docs
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Checks format, style, types and imports between packages, as CI does.
lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports

# Formats the code and mends what ruff can mend.
format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
