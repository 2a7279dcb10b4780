#!/bin/sh
# A mount stays behind.
# red: exit-0 name-missing
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
[ "$verb" != run ] || mount -t tmpfs none "$bundle/rootfs/tmp"
exit $code
