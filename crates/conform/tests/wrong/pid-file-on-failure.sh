#!/bin/sh
# A failed exec leaves a pid file: conmon takes it for the proof that the process runs.
# form: exec-detach
# red: name-missing directory
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
[ "$verb" != exec ] || [ $code -eq 0 ] || echo 1 >"$pid_file"
exit $code
