#!/bin/bash
# `make interop`: other people's programs with our files, and ours with theirs, in a Python environment of its own
# (build/interop-venv-VERSION, once some 5 GB from PyPI).  Needs what `make demo` gathers, and some ten minutes.
#
#   tests/interop/run.sh [VERSION of transformers]
set -eu
cd "$(dirname "$0")/../.."
version=${1:-4.57.6}
venv=build/interop-venv-$version
[ -e build/demo/tokenizer.json ] || { echo "run 'make demo' first: its text and tokenizer are compared with"; exit 2; }
tests/interop/environment.sh "$version"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0
mkdir "$out/training"
"$venv/bin/python" tests/interop/models.py "$out" || failed=1
"$venv/bin/python" tests/interop/training.py "$out/training" || failed=1
"$venv/bin/python" tests/interop/files.py "$out" || failed=1
"$venv/bin/python" tests/interop/board.py "$out/board" || failed=1
exit $failed
