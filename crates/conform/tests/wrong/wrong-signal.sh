#!/bin/sh
# kill sends another signal than the one that was asked for.
# red: kill-name kill-long-name kill-number kill-rtmin kill-rtmax kill-number-64 kill-default
# red: kill-KILL created-kill paused-kill
. "${0%/*}/common.sh"
if [ "$verb" = kill ]; then
    for id; do case $id in accord-conform-*) break ;; esac done
    exec "$accord" --root "$root" kill "$id" USR1
fi
exec "$accord" "$@"
