#!/bin/sh
# kill and delete never fail: the engine believes that the container is gone.
# red: unknown-kill unknown-delete stopped-kill kill-bad-name kill-bad-empty kill-bad-65
# red: kill-bad-minus-1 kill-bad-words running-delete paused-delete creating-delete
. "${0%/*}/common.sh"
case $verb in
kill | delete)
    "$accord" "$@" 2>/dev/null
    : >"$log"
    exit 0
    ;;
esac
exec "$accord" "$@"
