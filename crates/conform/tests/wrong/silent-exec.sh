#!/bin/sh
# exec fails with 1, which the program may return, too.
# form: exec
# red: args-empty args-missing cwd-file cwd-forbidden cwd-relative cwd-proc-fd-7 cwd-proc-fd-8
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
[ "$verb" != exec ] || [ $code -ne 255 ] || code=1
exit $code
