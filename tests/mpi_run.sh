#!/bin/bash
# launch/run: settings, signals and exit codes, with ranks that are shell scripts.
# Prints "ok NAME" or "not ok NAME" for each case, as tests/run.sh counts them.
set -um # -m: background jobs that do not ignore INT
cd "$(dirname "$0")/.." || exit 1
. tests/wait_for.sh
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
failed=0

check() { # name, wanted code, code
    if [ "$2" = "$3" ]; then echo "ok $1"; else
        echo "not ok $1: exit code $3, wanted $2"
        cat "$directory/log"
        failed=1
    fi
}

printf '#!/bin/sh\n' >"$directory/rank.sh"
chmod +x "$directory/rank.sh"
launch() { launch/run "$@" >"$directory/log" 2>&1; }

# A rank that leaves with 75 soon after USR1, says so, and otherwise lives for a minute.
cat >"$directory/rank" <<'RANK'
#!/bin/bash
leave() { trap '' USR1; echo "rank $OMPI_COMM_WORLD_RANK saw USR1" >>"$1.saw"; sleep 0.5; exit 75; }
trap 'leave "$0"' USR1
touch "$0.up.$OMPI_COMM_WORLD_RANK"
for i in $(seq 600); do sleep 0.1; done
RANK
chmod +x "$directory/rank"

# Starts two such ranks, waits until both are up, runs the given commands, sets `code`.
with_ranks() {
    rm -f "$directory"/rank.*
    launch/run -np 2 "$directory/rank" >"$directory/log" 2>&1 &
    run=$!
    wait_for test -e "$directory/rank.up.0"
    wait_for test -e "$directory/rank.up.1"
    "$@"
    wait "$run"
    code=$?
}
signals() { for s; do kill "-$s" "$run"; done; }

launch -np 2 true
check "all ranks done" 0 $?
refused() { # name, words of the only line, arguments
    local name=$1 words=$2
    shift 2
    launch "$@"
    check "$name" 2 $?
    [ "$(wc -l <"$directory/log")" = 1 ] && grep -qF -- "$words" "$directory/log"
    check "$name: in one line" 0 $?
}
for n in 0 x -1 2x 99999999999999999999; do
    refused "-np $n" "-np $n: a number of ranks is wanted" -np $n true
done
refused "nothing" usage:
refused "no program" usage: -np 2 --host localhost
refused "-np alone" usage: -np
ln -s "$PWD/launch/run" "$directory/caracal-run" # as it is installed
"$directory/caracal-run" 2>&1 | grep -q '^usage: caracal-run '
check "its own name" 0 $?
refused "a list of hosts that is not there" "$directory/hosts: there is no such file" -np 2 --hostfile "$directory/hosts" true
listed() { printf %b "$1" >"$directory/list"; }
listed '# none\n\n'
refused "a list of no hosts" "$directory/list: names no host" -np 2 --hostfile "$directory/list" true
for line in 'localhost:2' 'localhost slots=0' 'localhost slots=x' 'a,b' 'localhost slots=2\r' '\001'; do
    listed "localhost slots=1 # here\n$line\n"
    refused "a list with $line" "$directory/list, line 2: " -np 2 --hostfile "$directory/list" true
done
refused "a list that is a directory" "$directory: is no file that can be read" -np 2 --hostfile "$directory" true
listed '# here\n // and there\n\tlocalhost slots = 2 max_slots=9 # two\n'
launch --hostfile "$directory/list" -np 2 true
check "a list of hosts" 0 $?
refused "a program that is not there" "$directory/nowhere: there is no such program" -np 2 --mca btl self,vader "$directory/nowhere" -np x
refused "a program that is not in PATH" "nowhere: there is no such program in PATH" nowhere
refused "a directory" "$directory: is no program that can be run" -np 2 -x HOME --oversubscribe "$directory"
refused "a file that cannot be run" "./README.md: is no program" -np 2 ./README.md
PATH=$directory:/nowhere /bin/bash launch/run -np 2 true >"$directory/log" 2>&1 # in this shell's own words
check "no mpirun" 2 $?
launch --no-such-option nowhere -np 1 true
check "what an unknown option takes is mpirun's to say" 1 $?
launch --wdir "$directory" -np 2 ./rank.sh
check "another directory" 0 $?
launch -np 2 sh -c 'exit 3'
check "the program's own code passes through" 3 $?
launch -np 2 sh -c 'exit 75'
check "75 passes through" 75 $?
tail -n 1 "$directory/log" | grep -q "^launch/run: stopped as asked, exit code 75; the same command goes on"
check "and its last word is what that means" 0 $?
launch -np 2 sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && kill -9 $$; exec sleep 20'
check "a killed rank" 9 $?
launch -np 7 sh -c 'echo $OMPI_COMM_WORLD_SIZE'
check "more ranks than cores" 0 $?

with_ranks signals USR1
check "USR1 asks for a checkpoint" 75 "$code"
check "USR1 reaches every rank" 2 "$(wc -l <"$directory/rank.saw")"
with_ranks signals TERM
check "TERM asks for a checkpoint" 75 "$code"
with_ranks signals TERM TERM USR1
check "a repeated signal is ignored" 75 "$code"
with_ranks signals INT
check "INT stops now" 130 "$code"
grep -qx "launch/run: interrupted; the newest complete checkpoint is intact, train resumes from it" "$directory/log"
check "and says what is safe" 0 $?
with_ranks signals KILL
wait_for eval '! pgrep -f "$directory/rank" >/dev/null'
check "killed itself, it leaves nobody behind" 0 $?
exit $failed
