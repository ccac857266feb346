#!/bin/sh
# Installs the Debian packages that the build, the tests and the demo need, as far as they are missing.  Asks
# nothing, and does nothing when everything is there.
#
# Exit codes: 0 all is there, 2 something is missing and may not or cannot be installed here.
set -eu

wanted="gcc make pkg-config git libopenmpi-dev openmpi-bin libhdf5-dev libzstd-dev libyaml-dev libjansson-dev
        libpcre2-dev libxxhash-dev librandom123-dev
        libcmocka-dev hdf5-tools clang-format clang-tidy libomp-dev
        xz-utils"

if ! command -v dpkg-query >/dev/null; then
    # not Debian: trust what pkg-config and the compiler find
    if command -v mpicc >/dev/null && pkg-config --exists hdf5 libzstd yaml-0.1 jansson libpcre2-8 libxxhash; then
        exit 0
    fi
    echo "setup: this is not Debian; install what these Debian packages hold:" $wanted >&2
    exit 2
fi

installed=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' $wanted 2>/dev/null | sed -n 's/^ii *//p' || true)
missing=
for package in $wanted; do
    case "
$installed
" in
    *"
$package
"*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

root=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        root="sudo -n"
    else
        echo "setup: missing packages, and no right to install them; as root:" >&2
        echo "    apt-get install --no-install-recommends$missing" >&2
        exit 2
    fi
fi

echo "setup: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# fresh containers come without package lists
if ! { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y \
    --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get could not install:$missing" >&2
    exit 2
fi
