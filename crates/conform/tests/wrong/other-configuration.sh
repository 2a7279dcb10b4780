#!/bin/sh
# The process gets other attributes than the configuration says.
# red: environment user cwd arguments hostname no-capabilities no-new-privileges
. "${0%/*}/common.sh"
if [ -n "$bundle" ]; then
    sed -i 's/"ONE=1"/"ONE=2"/; s/"uid":1234/"uid":0/; s/"cwd":"\/work"/"cwd":"\/"/; s/ a b /ab/
        s/"hostname":"conform"/"hostname":"host"/; s/"noNewPrivileges":true/"noNewPrivileges":false/
        s/"bounding":\[\]/"bounding":["CAP_KILL"]/; s/"effective":\[\]/"effective":["CAP_KILL"]/
        s/"permitted":\[\]/"permitted":["CAP_KILL"]/' "$bundle/config.json"
fi
exec "$accord" "$@"
