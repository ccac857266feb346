#!/bin/bash
# `make peers`: what `make bench` compares with.  Installs OpenBLAS and oneDNN (Debian) and builds the program that times
# them; and the environment of `make interop` (5 GB of PyPI), in which PyTorch and transformers train the bench's shape.
set -eu
cd "$(dirname "$0")/../.."
build=${CARACAL_BUILD:-build}
version=4.57.6
mkdir -p "$build/peers"
if [ ! -e /usr/include/dnnl.h ] || ! ls /usr/include/*/cblas.h >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || { echo "install libdnnl-dev and libopenblas-dev, then run this again" >&2; exit 2; }
    apt-get install -y -q libdnnl-dev libopenblas-dev >/dev/null
fi
gcc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror tests/peers/gemm.c -o "$build/peers/gemm" -lopenblas -ldnnl
tests/interop/environment.sh "$version"
ln -sfn "../interop-venv-$version" "$build/peers/venv"
