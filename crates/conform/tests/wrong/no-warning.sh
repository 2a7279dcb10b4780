#!/bin/sh
# Nobody hears of what was left out, or went wrong at the end.
# red: capability-unknown hook-poststop-exit-1 hook-poststop-exit-255 hook-poststop-killed
# red: hook-poststop-missing hook-poststop-not-executable hook-poststop-timeout
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
[ $code -eq 1 ] || : >"$log"
exit $code
