#!/bin/sh
# Signals to the runtime in the foreground do not reach the process.
# red: forwarded-*
. "${0%/*}/common.sh"
trap '' HUP INT TERM USR1
(
    # A shell cannot undo an ignored signal, and accord passes on what it gets: it gets nothing.
    exec setsid "$accord" "$@"
) &
wait $!
code=$?
kill -9 $!
exit $code
