#!/bin/bash
# A folder with everything that the program needs, libc and MPI too: for a Linux machine of this processor family
# with no packages of ours, and an NVIDIA driver where the build is CUDA's.
#
#   launch/bundle.sh BUILD_DIR FOLDER
#
#   FOLDER/caracal train ...          one rank
#   FOLDER/run -np 2 caracal train ...  several, on one host (launch/run)
#   FOLDER/tests/...                  the tests' programs and golden cases
set -eu
build=${1:?the build directory}
to=${2:?the folder to make}
top=$(cd "$(dirname "$0")/.." && pwd)
mpirun=$(readlink -f "$(command -v mpirun)")
plugins=$(dirname "$(readlink -f "$(ldconfig -p | awk '/libmpi\.so\./ { print $NF; exit }')")")/openmpi3
[ -d "$plugins" ] || plugins=$(find /usr/lib* -type d -name openmpi3 | head -n 1)
pmix=$(find /usr/lib* -type d -path '*pmix*/lib/pmix' | head -n 1)

rm -rf "$to"
mkdir -p "$to"/{bin,lib,share,tests} "$to"/lib/{libc,openmpi,pmix}
cp "$build/caracal" "$to/bin/"
cp "$mpirun" "$to/bin/mpirun"
cp "$plugins"/mca_*.so "$to/lib/openmpi/"
[ -z "$pmix" ] || cp -r "$pmix"/. "$to/lib/pmix/"
cp -r /usr/share/openmpi "$to/share/"
[ ! -d /usr/share/pmix ] || cp -r /usr/share/pmix "$to/share/"
cp -r "$top/configs" "$to/"
for program in "$build"/tests/{golden,replay,timeline,transport,bench_cuda} "$build"/tests/test_cuda_*; do
    [ ! -x "$program" ] || cp "$program" "$to/bin/"
done
strip --strip-debug "$to"/bin/* # of the processor's code; what kernels say of their lines stays
cp -r "$top"/tests/{golden,tiny.yaml,gpu.sh,gpu_libraries.sh,gpu_speed.sh,gpu_session.sh,bench_cuda_peer.py} "$top"/tests/peers/longcat_{step,cuda}.py "$to/tests/"
for room in model launch; do # to train on in tests/gpu.sh
    mkdir -p "$to/tests/text/$room"
    cp "$top/$room"/*.[ch] "$to/tests/text/$room/"
done

# plugins whose own libraries are for networks that this machine lacks are left out
libraries() {
    ldd "$1" | awk '/not found/ { print "missing" } /=> \// { print $3 } /ld-linux/ { print $1 }'
}
for plugin in "$to"/lib/openmpi/*.so "$to"/lib/pmix/*.so; do
    [ -e "$plugin" ] || continue
    case $plugin in *ofi* | *ucx* | *psm* | *openib* | *usnic* | *portals*) rm "$plugin" ;; esac
done
for program in "$to"/bin/* "$to"/lib/openmpi/*.so "$to"/lib/pmix/*.so; do
    [ -e "$program" ] && libraries "$program"
done | sort -u | grep -v missing | while read -r library; do cp -L "$library" "$to/lib/"; done
# what the driver's library, cublasLt and NCCL will ask for: a libc's parts must not come from two machines
found() { ldconfig -p | awk -v name="$1" '$1 == name && /x86-64/ { print $NF; exit }'; }
for name in libgcc_s.so.1 libstdc++.so.6; do cp -L "$(found $name)" "$to/lib/"; done
for name in libc.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libm.so.6 libresolv.so.2 libutil.so.1; do
    rm -f "$to/lib/$name"
    cp -L "$(found $name)" "$to/lib/libc/"
done
mv "$to/lib/ld-linux-x86-64.so.2" "$to/lib/libc/"

# Programs run under the bundle's own loader: the machine's libc may be older.  The caller's LD_LIBRARY_PATH stays
# behind it, for libcublasLt and libnccl.  BUNDLE_LIBC=machine takes the machine's loader and libc instead.
mkdir -p "$to/real"
mv "$to"/bin/* "$to/real/"
for program in "$to"/real/*; do
    name=${program##*/}
    cat >"$to/bin/$name" <<'END'
#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
export OPAL_PREFIX="$here" PMIX_INSTALL_PREFIX="$here" OMPI_MCA_mca_base_component_path="$here/lib/openmpi" \
    PMIX_MCA_mca_base_component_path="$here/lib/pmix" PATH="$here/bin:$PATH" \
    HOME="${HOME:-/tmp}" # without, PMIx asks who the user is, and falls where no list says
# without ssh there are no other hosts, and Open MPI must not look for them
command -v ssh >/dev/null || export OMPI_MCA_plm="${OMPI_MCA_plm:-isolated}"
if [ "${BUNDLE_LIBC:-}" = machine ]; then
    LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/real/${0##*/}" "$@"
fi
exec "$here/lib/libc/ld-linux-x86-64.so.2" \
    --library-path "$here/lib/libc:$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$here/real/${0##*/}" "$@"
END
    chmod +x "$to/bin/$name"
done
cp "$top/launch/run" "$to/bin/launch-run"
cat >"$to/run" <<'END'
#!/bin/bash
here=$(cd "$(dirname "$0")" && pwd)
PATH="$here/bin:$PATH" exec "$here/bin/launch-run" "$@"
END
cat >"$to/caracal" <<'END'
#!/bin/sh
exec "$(cd "$(dirname "$0")" && pwd)/bin/caracal" "$@"
END
chmod +x "$to/run" "$to/caracal"
echo "$to: $(du -sh "$to" | cut -f1)"
