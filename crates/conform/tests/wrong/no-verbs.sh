#!/bin/sh
# ps, pause, resume and update do nothing.
# red: created-ps created-update paused-ps paused-update
# red: running-ps running-pause-resume running-update stopped-pause stopped-resume stopped-ps
# red: stopped-update unknown-ps unknown-pause unknown-resume unknown-update created-resume
# red: running-resume paused-pause creating-pause creating-resume
. "${0%/*}/common.sh"
case $verb in
ps | pause | resume | update) exit 1 ;;
esac
exec "$accord" "$@"
