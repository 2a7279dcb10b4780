#!/bin/sh
# Whatever the process returns, the runtime has done its work: 0, as with libkrun before 1.12.
# red: exit-1 exit-2 exit-42 exit-63 exit-12? exit-minus-1 exit-254 exit-255 exit-at-once
# red: reader-leaves init-ignores-* reboot-without-capability output-100M output-tty process-count seccomp-errno
# red: child-outlives-init child-outlives-init-shared-pids daemon stop-and-continue
# red: name-in-path relative-dot relative-nested relative-parent path-* mode-700-with-capability
# red: symlink-to-program unknown-fields capability-unknown masked-path-missing script
# red: seccomp-unknown-syscall seccomp-denies-set-up seccomp-denies-mounts
# red: mount-destination-through-symlink hook-*-ignores-input hook-*-talks running-exec created-exec closed-*
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
case $verb in
run | exec) code=0 ;;
esac
exit $code
