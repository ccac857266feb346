#!/bin/bash
# The Python environment of `make interop` and `make peers`, made once: build/interop-venv-VERSION, some 5 GB from PyPI.
#
#   tests/interop/environment.sh VERSION     of transformers
set -eu
cd "$(dirname "$0")/../.."
venv=build/interop-venv-$1
wanted="$1 $(sha256sum <tests/interop/requirements.txt)"
[ "$(cat "$venv/ready" 2>/dev/null)" != "$wanted" ] || exit 0
python3 -m venv --clear "$venv"
"$venv/bin/pip" --quiet install -r tests/interop/requirements.txt "transformers==$1"
echo "$wanted" >"$venv/ready"
