#!/bin/sh
# Names stand in the texts as they are.
# red: mount-source-quoted quoted-name id-invalid-space kill-bad-words
. "${0%/*}/common.sh"
stderr=$("$accord" "$@" 2>&1 >/dev/null)
code=$?
if [ -n "$stderr" ]; then
    text=$(echo "$stderr" | sed 's/\\x20/ /g; s/\\n/ /g')
    echo "$text" >&2
    text=$(echo "${text#accord: }" | tr -d '\\"')
    echo "{\"level\":\"error\",\"msg\":\"$text\",\"time\":\"2026-01-01T00:00:00Z\"}" >"$log"
fi
exit $code
