#!/bin/sh
# A terminal is there that was not asked for.
# red: no-terminal
. "${0%/*}/common.sh"
if [ -n "$bundle" ]; then
    sed -i 's/"terminal":false/"terminal":true/' "$bundle/config.json"
fi
exec "$accord" "$@"
