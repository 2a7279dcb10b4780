#!/bin/sh
# delete --force of what is not there is an error.
# red: unknown-delete-force
. "${0%/*}/common.sh"
if [ "$verb" = delete ]; then
    for word; do id=$word; done
    [ -e "$root/$id" ] || exec "$accord" --root "$root" --log "$log" --log-format json delete "$id"
fi
exec "$accord" "$@"
