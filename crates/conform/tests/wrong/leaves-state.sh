#!/bin/sh
# The state of a container stays behind.
# red: exit-0 created-delete created-delete-force running-delete-force paused-delete-force
# red: stopped-delete stopped-delete-force create-killed-* start-killed run-killed created-state
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
case $verb in
run | delete) [ $code -ne 0 ] || touch "$root/lock" ;;
esac
exit $code
