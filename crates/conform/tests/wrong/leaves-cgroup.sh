#!/bin/sh
# The container's cgroup stays behind.
# red: exit-0 create-killed-500 run-killed
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
if [ -n "$bundle" ]; then
    cgroup=$(sed 's/.*"cgroupsPath":"\([^"]*\)".*/\1/' "$bundle/config.json")
    echo "$cgroup" >"$root/../cgroup"
fi
case $verb in
run | delete) mkdir -p "/sys/fs/cgroup/pids/$(cat "$root/../cgroup")" ;;
esac
exit $code
