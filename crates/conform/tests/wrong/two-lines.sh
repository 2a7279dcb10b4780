#!/bin/sh
# A failure is two lines on stderr.
# red: name-missing directory config-missing mount-source-missing unknown-start stopped-start
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
[ ! -s "$log" ] || echo 'see the log for more' >&2
exit $code
