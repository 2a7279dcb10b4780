#!/bin/sh
# Every failure is worded by strerror(3): engines take it for a missing command.
# red: mount-source-missing root-missing cwd-file namespace-missing config-missing
# red: pid-file-not-writable user-unmapped seccomp-unknown-action hook-createRuntime-missing
# red: state-directory-read-only descriptors-exhausted-4
. "${0%/*}/common.sh"
stderr=$("$accord" "$@" 2>&1 >/dev/null)
code=$?
if [ -n "$stderr" ]; then
    echo 'No such file or directory' >&2
    echo '{"level":"error","msg":"No such file or directory","time":"2026-01-01T00:00:00Z"}' >"$log"
fi
exit $code
