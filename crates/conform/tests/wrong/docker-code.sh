#!/bin/sh
# The runtime's own failure is 125, which is the docker client's code.
# red: args-* process-missing cwd-file cwd-forbidden cwd-relative cwd-proc-fd-* user-* group-unmapped
# red: config-* type-* version-* bundle-missing root-* hostname-without-uts namespace-* sysctl-*
# red: rlimit-* id-* pid-file-not-writable console-socket-* mount-source-* mount-file-on-directory
# red: mount-directory-on-file mount-unknown-* mount-proc-over-symlink mount-without-destination
# red: device-bad-type seccomp-unknown-action seccomp-unknown-default-action
# red: seccomp-unknown-architecture seccomp-unknown-operator cgroup-* memory-too-small
# red: state-directory-* descriptors-exhausted-* processes-exhausted memory-exhausted-mount
# red: namespaces-exhausted pivot-refused user-refused hook-prestart-* hook-createRuntime-*
# red: hook-createContainer-* hook-startContainer-* hook-poststart-*
# red: unknown-start unknown-state unknown-delete unknown-pause unknown-resume unknown-ps
# red: unknown-update unknown-kill unknown-exec creating-* created-resume running-start
# red: running-delete running-resume running-create running-run created-create
# red: paused-create stopped-run kill-bad-* paused-start
# red: paused-pause paused-exec paused-delete stopped-start stopped-kill stopped-exec
# red: stopped-pause stopped-resume stopped-update stopped-create stopped-delete
# red: apparmor-profile-missing selinux-label-invalid
# not red: hook-*-ignores-input hook-*-talks running-delete-force creating-state
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
case $(cat "$log") in
*'"level":"error"'*) [ $code -ne 1 ] && [ $code -ne 255 ] || code=125 ;;
esac
exit $code
