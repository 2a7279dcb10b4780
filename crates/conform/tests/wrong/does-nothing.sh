#!/bin/sh
# Nothing is done, and nobody is told. (What takes long with a container goes quickly without.)
# stress
# red: exit-at-once-1000 hook-prestart-timeout hook-poststart-timeout
exit 3
