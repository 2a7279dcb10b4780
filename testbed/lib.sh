# Shared by the scripts of testbed/ and kernel/: places, messages, a cache
# whose entries are whole or absent.
# shellcheck shell=bash disable=SC2034 # what is set here is used there
set -euo pipefail

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cache=${ACCORD_CACHE:-$tree/cache}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  say "$*"
  exit "${own_failure:-1}"
}

# need COMMAND=PACKAGE...: all of them, or the command that installs the rest.
need() {
  local pair missing=()
  for pair; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [[ ${#missing[@]} -eq 0 ]] || die "missing tools: apt-get install ${missing[*]}"
}

# content_hash PATH...: one hash over the files' names, modes and bytes.
content_hash() {
  find "$@" -type f -printf '%p %m\0' | LC_ALL=C sort -z |
    while IFS= read -r -d '' entry; do
      printf '%s %s\n' "${entry##* }" "${entry% *}"
      cat -- "${entry% *}"
    done | sha256sum | cut -c1-16
}

# cached DIR BUILD ARGS...: make the cache entry DIR by `BUILD ARGS... TEMP`,
# once, whoever else wants it at the same time. A build that fails or is
# interrupted leaves nothing.
cached() {
  local entry=$1 temp lock
  shift
  [[ ! -d $entry ]] || return 0
  mkdir -p "${entry%/*}"
  exec {lock}>"${entry%/*}/.lock"
  flock "$lock"
  if [[ ! -d $entry ]]; then
    temp=$entry.partial
    rm -rf "$temp"
    mkdir "$temp"
    # shellcheck disable=SC2064 # now is when the name is known
    trap "rm -rf '$temp'" EXIT
    "$@" "$temp"
    mv "$temp" "$entry"
    trap - EXIT
  fi
  exec {lock}>&-
}
