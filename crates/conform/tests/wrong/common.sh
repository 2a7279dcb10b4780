# shellcheck shell=sh
# What the wrong runtimes share: each is called as SCRIPT ACCORD FLAG... VERB ARGUMENT...
# shellcheck disable=SC2034 # they read these

accord=$1
shift
# The suite's own order: --root DIR --log FILE --log-format json.
root=$2
log=$4
verb=
for word; do
    case $word in
    create | start | run | exec | kill | delete | state | ps | pause | resume | update)
        verb=$word
        break
        ;;
    esac
done

# The word behind the flag $1.
behind() {
    flag=$1
    shift
    while [ $# -gt 1 ]; do
        if [ "$1" = "$flag" ]; then
            echo "$2"
            return
        fi
        shift
    done
}
bundle=$(behind --bundle "$@")
pid_file=$(behind --pid-file "$@")
