#!/bin/sh
# The container shares the pids of the host.
# red: pid-1 init-ignores-TERM init-ignores-HUP
. "${0%/*}/common.sh"
[ -z "$bundle" ] || sed -i 's/{"type":"pid"},//' "$bundle/config.json"
exec "$accord" "$@"
