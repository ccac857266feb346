#!/bin/bash
# How well each kind of tensor of a checkpoint compresses: bytes of the elements over bytes in the file.
#
#   tests/ckpt_ratio.sh CKPT
set -eu
for file in "${1:?a step-N directory}"/*.h5; do h5dump -p -H "$file"; done | awk '
    $1 == "GROUP" && $2 != "\"/\"" { gsub(/"/, "", $2); kind = $2 }
    $1 == "DATATYPE" { width = $2 ~ /64/ ? 8 : 4 }
    $1 == "DATASPACE" { # SIMPLE { ( 4096, 128 ) / ( 4096, 128 ) }
        sub(/\/.*/, ""); gsub(/[^0-9,]/, ""); n = split($0, d, ","); elements = 1
        for (i = 1; i <= n; i++) elements *= d[i]
    }
    $1 == "SIZE" { raw[kind] += elements * width; stored[kind] += $2 }
    END {
        for (k in raw) {
            printf "%-20s %14d %14d  %.3f to 1\n", k, raw[k], stored[k], raw[k] / stored[k]
            a += raw[k]; b += stored[k]
        }
        printf "%-20s %14d %14d  %.3f to 1\n", "~ all", a, b, a / b
    }' | sort
