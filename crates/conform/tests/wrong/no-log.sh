#!/bin/sh
# Failures are told on stderr only.
# red: name-missing directory unknown-start
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
: >"$log"
exit $code
