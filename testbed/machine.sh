# One virtual machine: start it, reach it, stop it. Sourced after lib.sh.
#
# What a running machine has on the host is in one directory, $dir: its monitor
# (qmp.in, qmp.out), its console (console), the ssh client's set-up and
# connections (ssh, root.ctl, user.ctl) and the ids of its processes. The guard
# ends it all when its owner ends, however that happens.
# shellcheck shell=bash disable=SC2154,SC2034

boot_deadline=${TESTBED_BOOT_DEADLINE:-300} # seconds; 15 are enough on an idle machine
life=${TESTBED_LIFE:-28800}                 # seconds; no forgotten machine lives longer
memory=${TESTBED_MEMORY:-2G}
# Two that are emulated may stand still where KVM is used (README.md).
cpus=${TESTBED_CPUS:-2}
append=${TESTBED_APPEND:-} # to the kernel's command line

# The machine of testbed/up: a link to its $dir, dangling once it has ended.
session=$cache/testbed/session-${TESTBED_SESSION:-${TESTBED_RECIPE:-bookworm}}

# What the last machine that ended had said.
last_console=$cache/testbed/console.log

need qemu-system-x86_64=qemu-system-x86 qemu-img=qemu-utils zstd=zstd ssh=openssh-client busybox=busybox-static unshare=util-linux
for virtiofsd in /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd; do [[ ! -x $virtiofsd ]] || break; done
[[ -x $virtiofsd ]] || die "missing tools: apt-get install qemu-system-common (or virtiofsd)"

# machine_start IMAGE: a machine of IMAGE in a new $dir. It ends with this
# process, unless that disowns it. An emulated one is not booted but restored
# from its state after boot, which the cache keeps.
machine_start() {
  local image=$1 accel booted
  accel=$("$tree/testbed/accel")
  if [[ $accel == kvm || -n ${TESTBED_BOOT:-} ]]; then
    machine_boot "$image" "$accel" "file=$image/root.img,format=raw,snapshot=on"
  else
    booted=$cache/testbed/booted-$({
      echo "$image $memory $cpus $append"
      cat "$tree/testbed/machine.sh"
      qemu-system-x86_64 --version
      grep -m2 -E '^(model name|bogomips)' /proc/cpuinfo # the guest counts this processor's clock
    } | sha256sum | cut -c1-16)
    (cached "$booted" save_booted "$image" "$accel")
    new_machine "$image" "$accel" "file=$booted/disk,format=qcow2,snapshot=on" -incoming "exec:zstd -qdc $booted/state"
    wait_for "$boot_deadline" "restore" answers query-status '"status": "paused"' # as it was saved
    qmp cont >/dev/null
  fi
  serve_tree
  connect
}

# save_booted IMAGE ACCEL ENTRY: boot, let it come to rest, and keep the disk
# (what differs from the image) and the state. What is restored from one state
# is alike in everything, so `connect` sets the clock and adds randomness.
save_booted() {
  say "booting the machine once, to save its state"
  qemu-img create -q -f qcow2 -F raw -b "$1/root.img" "$3/disk"
  machine_boot "$1" "$2" "file=$3/disk,format=qcow2"
  in_guest root 'systemctl is-system-running --wait >/dev/null; sync'
  qmp stop >/dev/null
  qmp migrate '{"uri":"exec:zstd -q -3 -T0 >'"$3"'/state"}' >/dev/null
  wait_for "$boot_deadline" "saving the state" answers query-migrate '"status": "completed"'
  machine_stop
}

# machine_boot IMAGE ACCEL DISK: until it says that it is ready.
machine_boot() {
  new_machine "$@"
  wait_for "$boot_deadline" "boot" grep -aq 'testbed: ready' "$dir/console"
}

# new_machine IMAGE ACCEL DISK OPTIONS...: start QEMU, guarded, with what is
# needed to reach the guest.
new_machine() {
  local image=$1 accel=$2 disk=$3 cpu=host
  shift 3
  dir=$(mktemp -d "${TMPDIR:-/tmp}/accord-testbed.XXXXXX") # short: it holds socket paths
  mkfifo "$dir/qmp.in" "$dir/qmp.out"
  if [[ $accel == tcg ]]; then
    # A translation cache that holds a whole system; an AMD processor with SVM
    # and nested paging, less what TCG lacks and QEMU would warn of.
    accel=tcg,thread=multi,tb-size=1024
    cpu=EPYC,+svm,+npt,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save,-xsavec
  fi
  nice qemu-system-x86_64 -name accord-testbed -nodefaults -no-user-config -display none -no-reboot \
    -M q35,memory-backend=memory -accel "$accel" -cpu "$cpu" -smp "$cpus" -m "$memory" \
    -object memory-backend-memfd,id=memory,size="$memory",share=on \
    -drive "$disk,if=virtio,cache=unsafe" \
    -netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22 -device virtio-net-pci,netdev=net \
    -device virtio-rng-pci -device pcie-root-port,id=port0 \
    -serial file:"$dir/console" -chardev pipe,id=qmp,path="$dir/qmp" -mon chardev=qmp,mode=control \
    -kernel "$image/vmlinuz" -initrd "$image/initrd" -append "console=ttyS0 net.ifnames=0 panic=-1 quiet tsc=reliable $append" \
    -daemonize -pidfile "$dir/qemu.pid" "$@"
  exec {qmp_out}<"$dir/qmp.out"
  qmp qmp_capabilities >/dev/null
  guard
  configure_ssh "$image"
}

# guard: end the machine and remove $dir when its owner or QEMU ends.
guard() {
  echo $$ >"$dir/owner"
  # shellcheck disable=SC2016 # the variables of the guard's own shell
  setsid bash -c '
    dir=$1 qemu=$2
    while kill -0 "$qemu" && kill -0 "$(cat "$dir/owner")" && ((SECONDS < $3)); do sleep 0.5; done
    kill "$qemu" "$(cat "$dir/virtiofsd.pid")"
    while kill -0 "$qemu"; do sleep 0.1; done
    cp "$dir/console" "$4"
    rm -rf "$dir"' \
    guard "$dir" "$(cat "$dir/qemu.pid")" "$life" "$last_console" </dev/null >/dev/null 2>&1 &
}

# machine_disown: let it live on by itself.
machine_disown() { cp "$dir/qemu.pid" "$dir/owner"; }

configure_ssh() {
  local port
  port=$(qmp human-monitor-command '{"command-line":"info usernet"}' |
    sed -nE 's/.*HOST_FORWARD\] +[0-9]+ +127\.0\.0\.1 +([0-9]+) .*/\1/p')
  cat >"$dir/ssh" <<END
Host testbed
  HostName 127.0.0.1
  Port $port
  HostKeyAlias testbed
  UserKnownHostsFile $1/known_hosts
  IdentityFile $1/key
  IdentitiesOnly yes
  BatchMode yes
  LogLevel ERROR
  ControlPath $dir/%r.ctl
  ConnectTimeout 120
END
}

# serve_tree: the project's tree by virtiofs, read-only. The device is plugged
# in now and not at boot, since a machine that has it could not be saved.
serve_tree() {
  local as=(unshare --mount)
  [[ $EUID -eq 0 ]] || as+=(--map-auto --map-root-user)
  # shellcheck disable=SC2016 # the variables of the inner shell
  "${as[@]}" sh -c '
    mount --rbind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" \
      --socket-path="$3" --rlimit-nofile=0 -o source="$1" -o sandbox=chroot -o cache=auto' \
    virtiofsd "$tree" "$virtiofsd" "$dir/tree.sock" </dev/null >"$dir/virtiofsd.log" 2>&1 &
  echo $! >"$dir/virtiofsd.pid"
  wait_for 30 "virtiofsd" test -S "$dir/tree.sock"
  qmp chardev-add '{"id":"tree","backend":{"type":"socket","data":{"server":false,
    "addr":{"type":"unix","data":{"path":"'"$dir"'/tree.sock"}}}}}' >/dev/null
  qmp device_add '{"driver":"vhost-user-fs-pci","chardev":"tree","tag":"tree","bus":"port0"}' >/dev/null
}

# connect: one ssh connection a user, which every command then shares, and the
# last of the set-up inside.
connect() {
  local user
  for user in root user; do
    ssh -F "$dir/ssh" -fNM "$user@testbed" </dev/null >/dev/null 2>>"$dir/ssh.log"
  done
  in_guest root "date -s @$EPOCHSECONDS >/dev/null; head -c 64 /dev/hwrng >/dev/urandom; mkdir -p ${tree@Q}
    for try in \$(seq 100); do mount -t virtiofs -o ro tree ${tree@Q} 2>/dev/null && exit; sleep 0.1; done
    echo 'the tree cannot be mounted' >&2; exit 1"
}

# push_bin: what is executable in the project's bin/, to the guest's PATH; not
# again what is there already.
push_bin() {
  local file files=() stamp
  for file in "$tree"/bin/*; do
    [[ ! -f $file || ! -x $file ]] || files+=("${file##*/}")
  done
  [[ ${#files[@]} -gt 0 ]] || return 0
  stamp=$(cd "$tree/bin" && stat -L -c '%n %s %y %i' "${files[@]}")
  [[ $stamp != "$(cat "$dir/pushed" 2>/dev/null)" ]] || return 0
  tar -C "$tree/bin" -ch "${files[@]}" | in_guest root 'tar -C /usr/local/bin -x --no-same-owner'
  echo "$stamp" >"$dir/pushed"
}

# in_guest USER COMMAND-LINE: run by USER's shell.
in_guest() { ssh -F "$dir/ssh" "$1@testbed" "$2"; }

# qmp COMMAND [ARGUMENTS]: one command to QEMU's monitor, its answer on stdout.
qmp() {
  local answer
  printf '{"execute":"%s","arguments":%s}\n' "$1" "$(tr -d '\n' <<<"${2:-{\}}")" >"$dir/qmp.in"
  while read -r -t 60 answer <&"$qmp_out"; do
    case $answer in
      *'"return"'*) printf '%s\n' "$answer"; return ;;
      *'"error"'*) die "QEMU: $1: $answer" ;;
    esac
  done
  die "QEMU: $1: no answer"
}

# answers COMMAND TEXT: whether QEMU's answer holds TEXT.
answers() { qmp "$1" | grep -q "$2"; }

# wait_for SECONDS WHAT COMMAND...: until COMMAND is true; not longer, and not
# without QEMU.
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" 2>/dev/null; do
    kill -0 "$(cat "$dir/qemu.pid")" 2>/dev/null || fail "$what: QEMU has ended"
    ((SECONDS < end)) || fail "$what: not done in time"
    sleep 0.1
  done
}

# fail TEXT: with the end of the console.
fail() {
  machine_stop
  die "$1; the console ($last_console) ended with:
$(tail -n 20 "$last_console")"
}

# machine_stop: end it now; the guard clears up.
machine_stop() {
  local qemu try
  qemu=$(cat "$dir/qemu.pid" 2>/dev/null || true) # QEMU removes it when it ends
  [[ -z $qemu ]] || kill "$qemu" 2>/dev/null || true
  for try in {1..100}; do
    [[ -d $dir ]] || return 0
    sleep 0.1
  done
  [[ -z $qemu ]] || kill -KILL "$qemu" 2>/dev/null || true
  rm -rf "$dir"
}
