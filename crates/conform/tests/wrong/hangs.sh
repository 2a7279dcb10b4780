#!/bin/sh
# A program that ends at once is waited for in vain, as with youki.
# red: daemon hook-poststart-exit-1 kill-long-name
. "${0%/*}/common.sh"
case $verb in
run | kill) exec sleep 60 ;;
esac
exec "$accord" "$@"
