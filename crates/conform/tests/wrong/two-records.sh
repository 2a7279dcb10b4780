#!/bin/sh
# A failure is two records in the log: podman cannot read that.
# red: name-missing directory config-missing mount-source-missing unknown-start stopped-start
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
[ ! -s "$log" ] || cat "$log" "$log" >"$log.2"
[ ! -s "$log.2" ] || mv "$log.2" "$log"
exit $code
