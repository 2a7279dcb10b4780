#!/bin/sh
# The process that the engine waits on ends by itself, whatever the container does.
# form: create
# red: exit-0 exit-42 signal-TERM term-to-init handled-* killed-from-outside seccomp-kills-execve oom
. "${0%/*}/common.sh"
[ "$verb" = create ] || exec "$accord" "$@"
"$accord" "$@"
code=$?
if [ -s "$pid_file" ]; then
    setsid sh -c 'sleep 0.1; exit 3' </dev/null >/dev/null 2>&1 &
    echo $! >"$pid_file"
fi
exit $code
