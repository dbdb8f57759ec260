# make demo: set up and run the main job. make test: set up, then format, lint, types, tests. See README.md.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-kill test-slow benchmarks clean

demo: .venv/installed
	$(BIN)/python launch.py --config=configs/demo.py --workdir=runs/demo
	$(BIN)/python -m emo_jax.export --workdir=runs/demo --out=runs/demo/model --fold=0
	$(BIN)/python -m emo_jax.predict --model=runs/demo/model --out=runs/demo/predicted runs/demo_clips/s01

test: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -m 'not kill and not slow' -n 2 --dist loadscope --no-loadscope-reorder --cov --cov-report=term

# Real runs that are killed, stopped, starved of disk, lose a host, in every stage; long.
test-kill: .venv/installed
	$(BIN)/pytest -m kill

# Long films; a few minutes.
test-slow: .venv/installed
	$(BIN)/pytest -m slow

# The last one needs what make demo leaves.
benchmarks: .venv/installed
	$(BIN)/python -m benchmarks.conv3d
	$(BIN)/python -m benchmarks.train_step
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.rbm
	$(BIN)/python -m benchmarks.prepare
	$(BIN)/python -m benchmarks.folds
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.predict --model=runs/demo/model --clips=runs/demo_clips

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv runs
