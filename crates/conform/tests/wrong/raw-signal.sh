#!/bin/sh
# A process that a signal killed ends with the signal's number, as with youki.
# red: signal-* fault-* killed-from-outside seccomp-kill seccomp-trap init-abort
# red: reboot-restart reboot-halt reboot-poweroff oom oom-joined cpu-time joined-signal-* abort
# red: container-killed-in-exec exit-129 exit-137 exit-143
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
case $verb in
run | exec) [ $code -lt 129 ] || [ $code -gt 192 ] || code=$((code - 128)) ;;
esac
exit $code
