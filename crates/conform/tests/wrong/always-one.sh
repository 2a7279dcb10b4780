#!/bin/sh
# Whatever the reason that the program cannot run: 1, as with crun and runc.
# red: name-* path-* symlink-* script-interpreter-* elf-interpreter-missing empty-argument
# red: relative-missing quoted-name directory mode-000 mode-644 mode-666 mode-644-in-path
# red: unsearchable-parent mode-700-of-another noexec-mount component-is-file empty-file
# red: text-without-interpreter text-without-interpreter-in-path truncated-elf foreign-elf
# red: busy-file arguments-too-long fifo seccomp-denies-execve
# not red: name-in-path path-empty-element path-relative-element path-skips-* path-twice
# not red: symlink-to-program
. "${0%/*}/common.sh"
"$accord" "$@"
code=$?
[ $code -ne 126 ] && [ $code -ne 127 ] || code=1
exit $code
