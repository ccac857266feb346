# Waiting for what other processes do (sourced).
# shellcheck shell=bash
wait_for() { # a command that must succeed within a minute
    local end=$((SECONDS + 60))
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.02
    done
}
