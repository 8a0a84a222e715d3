# Every target installs what it needs into .venv first; a machine needs Python 3.11, make and pip.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install demo test test-fast coverage lint lint-js build lock lowest samples notebooks pictures docs bench-train bench-large bench-serve bench-predictions bench-accuracy bench-methods bench-recordings bench-many bench-models soak fuzz clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(wildcard requirements/*.txt)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(shell grep -o '^uv==[0-9.]*' requirements/dev.txt)
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python -r requirements/dev.txt -r requirements/engine.txt
	$(BIN)/pip install --quiet -r requirements/torch.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Train on data/training, serve, predict data/inference/input, print the accuracy.
demo: install
	$(BIN)/python -m data.demo demo

# All checks and all tests, on as many processes as the machine has cores.
test: lint
	$(BIN)/pytest -n auto --dist loadfile

# The checks, the unit tests but for slow ones, one training and one request.
test-fast: lint
	$(BIN)/pytest -n auto --dist loadfile tests/unit tests/contract/test_end_to_end.py -m "not slow"

# Line and branch coverage of all tests except the image tests, including the programs that they start.
coverage: install
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist loadfile -m "not images and not packaging"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(shell command -v npm),$(MAKE) lint-js,@echo "lint-js skipped: Node.js is not installed")

# The scripts of the server's web page; needs Node.js.
ESLINT := build/eslint/node_modules/.bin/eslint
lint-js: $(ESLINT)
	$(ESLINT) --config serving/page/eslint.config.mjs serving/page

$(ESLINT):
	npm install --silent --no-save --no-fund --no-audit --prefix build/eslint eslint@9.39.1

# Build the wheel and the source distribution into build/dist.
build: install
	$(BIN)/python -m build --no-isolation --outdir build/dist

# Update the pins in requirements/ to the newest versions that pyproject.toml allows, with the hashes of their files.
# The version of torch is changed by hand; requirements/torch.txt says why.
COMPILE := $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock"
PINS := $(COMPILE) pyproject.toml --python-platform linux --constraints requirements/torch.txt \
	--excludes requirements/excluded.txt --no-emit-package torch --no-emit-package onnxruntime
lock: install
	$(PINS) --extra development --output-file requirements/dev.txt
	$(PINS) --extra train --extra tables --constraints requirements/dev.txt --output-file requirements/train.txt
	$(PINS) --extra serve --excludes requirements/not-served.txt --constraints requirements/dev.txt --output-file requirements/serve.txt
	$(COMPILE) requirements/engine.in --universal --no-deps --output-file requirements/engine.txt
	echo "atheris" | $(COMPILE) - --no-deps --output-file requirements/fuzz.txt
	echo "mlflow>=3" | $(COMPILE) pyproject.toml - --python-platform linux --output-file requirements/mlflow.txt
	echo "sagemaker[local]<3" | $(COMPILE) - --python-platform linux --output-file requirements/sdk-v2.txt
	echo "sagemaker>=3" | $(COMPILE) - --python-platform linux --output-file requirements/sdk-v3.txt

# Install the lowest versions that pyproject.toml declares; train, predict and tune with them.
lowest: install
	$(BIN)/pytest tests/packaging/test_lowest.py

# Generate everything in data/ again: the sample series, and the predictions by running both ways.
samples: install
	$(BIN)/python -m data.make_samples
	$(BIN)/python -m data.demo demo
	mkdir -p data/inference/output
	cp -r demo/predictions/batch demo/predictions/real-time data/inference/output/

# Run the notebooks and write their outputs into them; needs a container engine, and TIME_SERIES_DATA for one of them.
notebooks: install
	WRITE_NOTEBOOKS=1 $(BIN)/pytest tests/contract/test_notebooks.py tests/images/test_notebooks.py

# Generate the pictures in docs/models.md again: of the default network, and of one with attention over time. Chromium
# takes the screenshot of the report.
TRAIN := $(BIN)/lstm-fcn train --training data/training/train.csv --validation data/training/valid.csv --epochs 60
pictures: install
	$(TRAIN) --output build/pictures/model
	$(TRAIN) --output build/pictures/attention --recurrent alstm --dimension-shuffle false
	$(BIN)/lstm-fcn visualize build/pictures/model data/training/valid.csv build/pictures/model/pictures
	$(BIN)/lstm-fcn visualize build/pictures/attention data/training/valid.csv build/pictures/attention/pictures \
		--one-per-class
	mkdir -p docs/pictures
	cp $(patsubst %,build/pictures/model/pictures/%.png,examples filters-1 curves confusion) docs/pictures/
	cp build/pictures/attention/pictures/attention.png docs/pictures/
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1000,1500 --screenshot=docs/pictures/report.png \
		build/pictures/model/report.html

# The documentation as a site in build/site/html, with search and a reference of the Python API; warnings are errors.
SITE ?= build/site
docs: install
	rm -rf $(SITE) && mkdir -p $(SITE)/pages/benchmarks $(SITE)/pages/notebooks
	cp -r README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md LICENSE docs $(SITE)/pages/
	cp -r benchmarks/results $(SITE)/pages/benchmarks/
	cp notebooks/*.ipynb $(SITE)/pages/notebooks/
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs $(SITE)/pages $(SITE)/html

# Training against its peers, as ratios: steps and epochs, reading CSV, one process and two.
bench-train: install
	$(BIN)/python -m lstm_fcn.benchmarks.train_step
	$(BIN)/python -m lstm_fcn.benchmarks.ingestion
	$(BIN)/python -m lstm_fcn.benchmarks.scaling

# Reading a CSV file larger than memory; needs 1.5 times its size in the scratch folder.
bench-large: install
	$(BIN)/python -m lstm_fcn.benchmarks.ingestion --gigabytes 6 --train

# The endpoint under load against its peer, as ratios; installs the load generator, wrk, as a Debian package.
bench-serve: install
	command -v wrk > /dev/null || apt-get install --yes --quiet wrk
	$(BIN)/python -m lstm_fcn.benchmarks.serving

# Test accuracies over the UCR archive (TIME_SERIES_DATA), compared with published ones. Takes hours; if interrupted, run
# it again to resume. METHODS, CELLS, SEEDS and PRESET select the runs.
METHODS ?= LSTM-FCN ALSTM-FCN
CELLS ?= 8
SEEDS ?= 0 1 2
PRESET ?= default
RESULTS ?= build/accuracy
bench-accuracy: install
	$(BIN)/lstm-fcn benchmark import $(TIME_SERIES_DATA)/ucr build/problems
	$(BIN)/lstm-fcn benchmark run build/problems $(RESULTS)/ucr-$(PRESET).csv $(METHODS:%=--method %) \
		$(CELLS:%=--cells %) $(SEEDS:%=--seed %) --preset $(PRESET) --skip-irregular
	$(BIN)/lstm-fcn benchmark compare $(RESULTS)/ucr-$(PRESET).csv --output $(RESULTS)/ucr-$(PRESET) \
		--published $(TIME_SERIES_DATA)/reference_accuracies.csv

# Accuracies and training times of the presets and of aeon's classifiers on ten problems: every fourth of the archive's
# regular ones, from the third. Takes hours; if interrupted, run it again to resume.
TEN := ArrowHead BirdChicken DiatomSizeReduction FaceFour GunPointAgeSpan Lightning2 OSULeaf \
	ProximalPhalanxOutlineCorrect SonyAIBORobotSurface1 ToeSegmentation1
bench-methods: install build/aeon
	$(BIN)/lstm-fcn benchmark import $(TIME_SERIES_DATA)/ucr build/problems
	mkdir -p $(RESULTS)
	for preset in default best; do $(BIN)/lstm-fcn benchmark run build/problems $(RESULTS)/ten.csv --preset $$preset \
		$(TEN:%=--problem %) || exit 1; done
	PYTHONPATH=. build/aeon/bin/python -m lstm_fcn.benchmarks.aeon_methods build/problems $(RESULTS)/ten-aeon.csv $(TEN)
	$(BIN)/lstm-fcn benchmark compare $(RESULTS)/ten.csv $(RESULTS)/ten-aeon.csv --output $(RESULTS)/ten \
		--published $(TIME_SERIES_DATA)/reference_accuracies.csv --method "InceptionTime (ensemble of 5)" \
		--method "LITETime (ensemble of 5)" --method "HIVE-COTE 2 (tsml-eval fold 0)"

build/aeon:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet aeon==1.6.0 tensorflow-cpu==2.21.0 -r requirements/torch.txt || (rm -r $@; exit 1)

# bfloat16 against float32 on problems of the UCR archive (TIME_SERIES_DATA), and the pictures in docs/.
bench-predictions: install
	$(BIN)/python -m lstm_fcn.benchmarks.predictions --pictures docs/pictures

# What leaks between windows, and how well intervals are found (TIME_SERIES_DATA); draws the pictures in docs/.
bench-recordings: install
	$(BIN)/python -m lstm_fcn.benchmarks.recordings --pictures docs/pictures

# Many small models: train-many against a loop of train, as a ratio, and whether the files are the same.
bench-many: install
	$(BIN)/python -m lstm_fcn.benchmarks.many

# Ten minutes of mixed load on the endpoint while its workers are killed; every answer is checked.
soak: install
	$(BIN)/python -m lstm_fcn.benchmarks.soak

# A thousand models behind one endpoint while its workers are killed: latency, memory, wrong answers.
bench-models: install
	$(BIN)/python -m lstm_fcn.benchmarks.many_models

# Coverage-guided fuzzing of everything that reads input from outside, one minute for each target.
fuzz: install
	$(BIN)/pip install --quiet --no-deps -r requirements/fuzz.txt
	for target in csv decode http; do $(BIN)/python -m tests.fuzz $$target -max_total_time=60 || exit 1; done

clean:
	rm -rf .venv build demo notebooks/build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
