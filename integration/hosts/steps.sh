# The steps of inside.sh, a function each, in the order in which they are run.
# shellcheck shell=bash disable=SC2154 # here, kept: of inside.sh

program=/usr/libexec/oci/hooks.d/oci-coredump
store=/var/lib/oci-coredump
eci=k8s.aliyun.com/eci-core-pattern
pattern() { cat /proc/sys/kernel/core_pattern; }
ours() { [[ $(pattern) == "|$program handle "* ]]; }
served() { [ "$(pattern)" = @@/run/oci-coredump/coredump.socket ]; }
# By the pipe or through the socket, as this host is configured.
taken() { if grep -qs socket /etc/oci-coredump/config.toml; then served; else ours; fi; }
before() { [ "$(pattern)" = "$(cat "$kept/pattern")" ]; }

# `set -e` takes no notice of `!`.
not() { if "$@"; then echo "unexpected: $*"; return 1; fi; }

# Waits until a command succeeds: `until_so SECONDS COMMAND...`. The machine may be emulated.
until_so() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || { echo "not within its time: $*"; return 1; }
        sleep 1
    done
}

# Every file of the host but logs and caches, and what this test and the engines keep.
files() {
    find / -xdev \( -path /root/hosts-test -o -path /home -o -path /tmp -o -path /var/tmp \
        -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/rpm \
        -o -path /var/lib/containers -o -path /var/lib/docker -o -path /var/lib/containerd \
        -o -path /var/lib/systemd -o -path /usr/lib/sysimage -o -path /lost+found \
        -o -path /opt/containerd -o -path /etc/cni -o -path /var/lib/cni \
        -o -path /root/.local \) -prune \
        -o -type d -printf '%p %y %m %u %g\n' -o -printf '%p %y %m %u %g %s %l\n' | sort
    find /etc -xdev -type f -print0 | sort -z | xargs -0 sha256sum
    ls -d /run/oci-coredump* /run/sysctl.d 2>/dev/null || :
}

sysctls() {
    (cd /proc/sys && grep -rs '' kernel fs/suid_dumpable vm) |
        grep -v -E '^kernel/(random|ns_last_pid|pty|tainted|sched|cap_last)|^vm/(stat|compact|drop)' |
        # The kernel computes it from the free memory, at every boot.
        grep -v '^vm/user_reserve_kbytes'
}

image() {
    local root=/root/hosts-test/image
    mkdir -p $root/{bin,dev,etc,proc,sys,tmp}
    cp "$(command -v busybox)" $root/bin/busybox
    for name in $($root/bin/busybox --list); do
        [ "$name" = busybox ] || ln -sf busybox "$root/bin/$name"
    done
    cp "$here/server" $root/bin/server
    cp "$here/server" /root/hosts-test/server
    tar -C $root -c . >/root/hosts-test/image.tar
    chmod 755 /root /root/hosts-test
}

# --- first boot

host() {
    printf 'host\tLinux %s, systemd %s, podman %s, Docker %s, %s %s\n' "$(uname -r)" \
        "$(systemctl --version | sed -n '1s/systemd \([^ ]*\).*/\1/p')" \
        "$(podman --version | sed 's/.* //')" \
        "$(dockerd --version | sed 's/.*version \([^,]*\),.*/\1/')" \
        "containerd $(containerd --version | sed 's/[^ ]* [^ ]* v\{0,1\}\([^ +~]*\).*/\1/')," \
        "AppArmor $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo N)"
}

photo_before() {
    pattern >"$kept/pattern"
    [[ $(pattern) == *systemd-coredump* ]]
    systemd-tmpfiles --create >/dev/null 2>&1 || :
    files >"$kept/files"
    sysctls >"$kept/sysctls"
}

deb_installed() {
    dpkg --install "$here/first.deb"
    before
    [ "$(stat -c %a $store)" = 700 ]
    oci-coredump --version
    man -w oci-coredump 2>/dev/null || [ -e /usr/share/man/man1/oci-coredump.1.gz ]
    not systemctl is-enabled oci-coredump.service
}

# A container's demonstration: `demonstrate NAME PODMAN...`, with a command that starts podman.
demonstrate() {
    local name=$1
    shift
    "$@" run --detach --name "$name" --network none --annotation $eci=/pod/data/dump/core-eci \
        localhost/bb sleep 100000
    [ "$("$@" exec "$name" cat /proc/sys/kernel/core_pattern)" = /pod/data/dump/core-eci ]
    "$@" exec "$name" sh -c 'server; true'
    "$@" exec "$name" sh -c 'ls /pod/data/dump' | grep '^core-eci\.[0-9]*$'
}

podman_root() {
    podman import "$kept/image.tar" localhost/bb
    demonstrate demo podman
    ours
    local id
    id=$(podman inspect --format '{{.Id}}' demo)
    podman rm --force --time 0 demo
    ls $store/containers/"$id"/core-eci.*
    oci-coredump list container=demo | grep present
    oci-coredump info container=demo | grep parse_length
    oci-coredump export container=demo -o "$kept/demo.tar.zst"
    oci-coredump debug "$kept/demo.tar.zst" -A -batch -A -ex -A bt | grep parse_length
}

taken_over() {
    oci-coredump install
    ours
    grep -q core_pattern /etc/sysctl.d/61-oci-coredump.conf
    systemctl is-active oci-coredump.service
    systemctl is-enabled oci-coredump.service
    oci-coredump doctor podman || { oci-coredump doctor podman; false; }
}

as_someone() { runuser -u someone -- env -C /home/someone "XDG_RUNTIME_DIR=/run/user/$(id -u someone)" "$@"; }

podman_rootless() {
    useradd --create-home --shell /bin/bash someone
    loginctl enable-linger someone
    until_so 120 test -S "/run/user/$(id -u someone)/bus"
    as_someone podman import "$kept/image.tar" localhost/bb
    demonstrate mine as_someone podman
    as_someone podman rm --force --time 0 mine
    as_someone oci-coredump list container=mine | grep present
}

podman_pasta() {
    # A network that it could copy is none of every virtual machine's.
    as_someone podman run --rm --network pasta localhost/bb true || return 77
    as_someone podman run --rm --network pasta --annotation oci-coredump/pattern=/c/core \
        localhost/bb sh -c 'server; ls /c' | grep '^core\.'
}

quadlet() {
    mkdir -p /etc/containers/systemd
    cat >/etc/containers/systemd/web.container <<END
[Container]
ContainerName=web
Image=localhost/bb
Network=none
Annotation=$eci=/pod/data/dump/core-eci
Exec=sleep 100000
[Service]
Restart=always
[Install]
WantedBy=multi-user.target
END
    systemctl daemon-reload
    systemctl start web.service
    crash_in web
}

# A crash in the running container NAME leaves one more core there.
crash_in() {
    local count
    count=$(podman exec "$1" sh -c 'ls /pod/data/dump | wc -l')
    podman exec "$1" sh -c 'server; true'
    [ "$(podman exec "$1" sh -c 'ls /pod/data/dump | wc -l')" = $((count + 1)) ]
}

kube_play() {
    cat >"$kept/pod.yaml" <<END
apiVersion: v1
kind: Pod
metadata:
  name: shop
  annotations:
    $eci: /pod/data/dump/core-eci
spec:
  containers:
    - name: shop
      image: localhost/bb
      command: ["sleep", "100000"]
END
    podman kube play --network none "$kept/pod.yaml"
    podman exec shop-shop sh -c 'server; ls /pod/data/dump' | grep '^core-eci\.[0-9]*$'
    podman kube down "$kept/pod.yaml"
    oci-coredump list pod=shop | grep present
}

docker() {
    oci-coredump install docker
    systemctl restart docker
    command docker import "$kept/image.tar" bb
    command docker run --detach --name whale --network none --annotation $eci=/pod/data/dump/core-eci \
        bb sleep 100000
    command docker exec whale sh -c 'server; ls /pod/data/dump' | grep '^core-eci\.[0-9]*$'
    command docker rm --force whale
    oci-coredump uninstall docker
    systemctl restart docker
    command docker image rm bb
}

# One call of the CRI: `cri METHOD REQUEST`, by the numbers of the fields; see cri.py.
cri() { python3 "$here/cri.py" /run/containerd/containerd.sock "RuntimeService/$1" "$2"; }

# A pod by the CRI of containerd, which is told of the program in this way. What the step changes of
# containerd's configuration is put back whatever becomes of it.
pods() {
    local way=$1 saved=$kept/containerd major
    major=$(containerd --version | sed 's/[^ ]* [^ ]* v\{0,1\}\([0-9]*\)\..*/\1/')
    # NRI is not on by itself in older ones.
    [ "$way" != nri ] || [ "$major" -ge 2 ] || { echo "containerd $major"; return 77; }
    rm -rf "$saved"
    mkdir "$saved"
    cp -a /etc/containerd/. "$saved" 2>/dev/null || :
    local status=0
    (set -eu; pod_in_containerd "$way" "$major") || status=$?
    oci-coredump uninstall containerd || status=1
    find /etc/containerd -mindepth 1 -delete 2>/dev/null || :
    if [ -n "$(ls -A "$saved")" ]; then
        cp -a "$saved/." /etc/containerd
    else
        rm -rf /etc/containerd
    fi
    systemctl restart containerd
    return $status
}

pod_in_containerd() {
    local way=$1 sandbox container config answer
    mkdir -p /etc/containerd
    if [ "$2" -ge 2 ]; then
        cat >/etc/containerd/config.toml <<END
version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'localhost/pod:1'
END
    else
        cat >/etc/containerd/config.toml <<END
version = 2
[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = 'localhost/pod:1'
END
    fi
    oci-coredump install containerd --way "$way"
    systemctl restart containerd
    oci-coredump doctor containerd || { oci-coredump doctor containerd; false; }
    podman import --change 'CMD ["/bin/sleep", "100000"]' "$kept/image.tar" localhost/pod:1
    rm -f "$kept/pod.tar"
    podman save --format docker-archive --output "$kept/pod.tar" localhost/pod:1
    podman image rm localhost/pod:1
    ctr --namespace k8s.io images import "$kept/pod.tar"
    # Names, annotation, the host's network.
    config='{"1": {"1": "web-0", "2": "uid-web-0-'$way'", "3": "shop"}, "3": "'$kept'/logs",
        "7": [{"1": "'$eci'", "2": "/pod/data/dump/core-eci"}], "8": {"2": {"1": {"1": 2}}}}'
    sandbox=$(cri RunPodSandbox '{"1": '"$config"'}' | jq -r '."1"[0]')
    container=$(cri CreateContainer '{"1": "'"$sandbox"'", "2": {"1": {"1": "app"},
        "2": {"1": "localhost/pod:1"}, "3": ["/bin/sleep", "100000"], "11": "app.log",
        "15": {"2": {"3": {"1": 2, "2": 1}}}}, "3": '"$config"'}' | jq -r '."1"[0]')
    cri StartContainer '{"1": "'"$container"'"}'
    answer=$(cri ExecSync '{"1": "'"$container"'", "3": 60, "2": ["/bin/sh", "-c",
        "cat /proc/sys/kernel/core_pattern; server; ls /pod/data/dump"]}' | jq -r '."1"[0]')
    echo "$answer"
    grep -x /pod/data/dump/core-eci <<<"$answer"
    grep '^core-eci\.[0-9]*$' <<<"$answer"
    cri StopPodSandbox '{"1": "'"$sandbox"'"}'
    cri RemovePodSandbox '{"1": "'"$sandbox"'"}'
    # Its names, and the core, which has stayed.
    oci-coredump list "container=$container" --json | tail -n 1 |
        jq -e '.pod_namespace == "shop" and .pod_name == "web-0" and .container_name == "app"'
    oci-coredump list "container=$container" | grep present
}

host_crash() {
    local count
    count=$(cores_of_host)
    "$kept/server" || :
    until_so 120 eval "[ \"\$(cores_of_host)\" -gt $count ]"
}
cores_of_host() { coredumpctl --no-pager --no-legend list /root/hosts-test/server 2>/dev/null | wc -l; }

sysctl_restarted() {
    systemctl restart systemd-sysctl
    ours
    crash_in web
}

# Another package's file in /usr/lib/sysctl.d, whose postinst does what systemd-coredump's does. Our
# service is stopped, so that it is the trigger that puts the pattern back.
triggered() {
    local tree=$kept/other
    mkdir -p "$tree/DEBIAN" "$tree/usr/lib/sysctl.d"
    printf 'Package: other\nVersion: 1\nArchitecture: all\nMaintainer: o <o@example.org>\nDescription: o\n' \
        >"$tree/DEBIAN/control"
    echo '# nothing' >"$tree/usr/lib/sysctl.d/49-other.conf"
    printf '#!/bin/sh\n/usr/lib/systemd/systemd-sysctl 50-coredump.conf\n' >"$tree/DEBIAN/postinst"
    chmod 755 "$tree/DEBIAN/postinst"
    dpkg-deb --build "$tree" "$kept/other.deb"
    systemctl stop oci-coredump.service
    dpkg --install "$kept/other.deb"
    ours
    systemctl start oci-coredump.service
    dpkg --purge other
    ours
}

upgraded() {
    local init
    init=$(podman inspect --format '{{.State.Pid}}' web)
    dpkg --install "$here/second.deb"
    ours
    [ "$(podman inspect --format '{{.State.Pid}}' web)" = "$init" ]
    crash_in web
    systemctl is-active oci-coredump.service
    [ "$(readlink "/proc/$(systemctl show --value -p MainPID oci-coredump.service)/exe")" = $program ]
}

uploaded() {
    dpkg --install "$here/ship.deb"
    not systemctl is-active oci-coredump-ship.service
    mkdir -p /etc/oci-coredump
    printf '[upload]\nurl = "file:///var/lib/oci-coredump-ship/crashes"\n' \
        >>/etc/oci-coredump/config.toml
    oci-coredump ship check
    systemctl start oci-coredump-ship.service
    crash_in web
    local id
    id=$(oci-coredump info container=web | sed -n 's/^ *Record: //p')
    until_so 300 eval "oci-coredump list record=$id | grep -w yes" || {
        oci-coredump list record="$id"
        journalctl --no-pager --lines 15 --unit oci-coredump-ship.service --output cat
        false
    }
    ls /var/lib/oci-coredump-ship/crashes/*/*/*/"$id"/{record.json,report.html,coredump.tar.zst}
    systemd-analyze security oci-coredump-ship.service | tail -n 1
    dpkg --purge oci-coredump-ship
    [ ! -e /usr/libexec/oci-coredump/oci-coredump-ship ]
    rm /etc/oci-coredump/config.toml
}

socket_served() {
    grep -qsx socket /proc/sys/kernel/core_modes || {
        echo 'before Linux 6.17 the kernel has no such socket'
        return 77
    }
    mkdir -p /etc/oci-coredump
    echo 'kernel_interface = "socket"' >/etc/oci-coredump/config.toml
    oci-coredump install
    until_so 120 served || {
        pattern
        oci-coredump doctor
        journalctl --no-pager --lines 15 --unit 'oci-coredump*' --output cat
        false
    }
    systemctl is-active oci-coredump-serve.socket oci-coredump-serve.service
    systemctl is-enabled oci-coredump-serve.socket oci-coredump-serve.service
    oci-coredump doctor podman || { oci-coredump doctor podman; false; }
    crash_in web
    host_crash
    systemd-analyze security oci-coredump-serve.service | tail -n 1
}

# A hundred crashes one after the other in the container, while the service is restarted, reloaded,
# killed and replaced: each has its core.
socket_restarted() {
    served || return 77
    local count=100 before after
    before=$(podman exec web sh -c 'ls /pod/data/dump | wc -l')
    podman exec web sh -c "for i in \$(seq $count); do server; done; true" >/dev/null 2>&1 &
    local crashes=$!
    for _ in 1 2 3; do
        systemctl restart oci-coredump-serve.service
        sleep 2
        systemctl reload oci-coredump-serve.service
        sleep 2
        systemctl kill --signal=KILL --kill-whom=main oci-coredump-serve.service
        sleep 2
    done
    dpkg --install "$here/first.deb"
    dpkg --install "$here/second.deb"
    wait $crashes
    after=$(podman exec web sh -c 'ls /pod/data/dump | wc -l')
    echo "$((after - before)) of $count crashes have a core"
    [ $((after - before)) = $count ]
    until_so 120 served
    systemctl is-active oci-coredump-serve.service
}

socket_stopped() {
    served || return 77
    systemctl stop oci-coredump-serve.service oci-coredump-serve.socket
    ours
    crash_in web
    host_crash
    systemctl start oci-coredump-serve.socket oci-coredump-serve.service
    until_so 120 served
    crash_in web
}

# By the configuration to the pipe and back; and a socket whose file is gone, by doctor's hint.
socket_configured() {
    served || return 77
    echo 'kernel_interface = "pipe"' >/etc/oci-coredump/config.toml
    oci-coredump install
    ours
    not systemctl is-active --quiet oci-coredump-serve.socket
    not systemctl is-enabled --quiet oci-coredump-serve.service
    crash_in web
    echo 'kernel_interface = "socket"' >/etc/oci-coredump/config.toml
    oci-coredump install
    until_so 120 served
    rm /run/oci-coredump/coredump.socket
    oci-coredump doctor podman >"$kept/doctor" || :
    grep -F 'systemctl restart oci-coredump-serve.socket oci-coredump-serve.service' "$kept/doctor"
    systemctl restart oci-coredump-serve.socket oci-coredump-serve.service
    until_so 120 served
    crash_in web
}

# The process that serves the socket.
server() { systemctl show --value -p MainPID oci-coredump-serve.service; }

# A server that does not answer, whatever the cause: the pipe has the crashes until it goes on.
stalled() {
    served || return 77
    kill -STOP "$(server)"
    until_so 60 ours
    kill -CONT "$(server)"
    until_so 120 served
    crash_in web
}

# One that hangs for good is killed by its unit, and another one serves.
hung() {
    served || return 77
    local was
    was=$(server)
    kill -STOP "$was"
    until_so 300 eval '[ "$(server)" != '"$was ]"
    until_so 120 served
    crash_in web
}

# However often it is killed, the socket goes on listening.
killed_often() {
    served || return 77
    for _ in 1 2 3 4 5 6 7 8; do
        systemctl kill --signal=KILL --kill-whom=main oci-coredump-serve.service || :
        sleep 0.5
    done
    until_so 120 served
    systemctl is-active oci-coredump-serve.socket
    crash_in web
}

# Systemd's socket goes on listening when its server has been stopped: to that no crash may be led.
dead_socket() {
    served || return 77
    systemctl start systemd-coredumpd || return 77
    sleep 8
    systemctl stop systemd-coredumpd
    sleep 6
    oci-coredump uninstall
    [[ $(pattern) == "|"* ]]
    host_crash
    oci-coredump install
    until_so 120 served
}

phase_use() {
    host
    image
    step 'a host whose crashes systemd-coredump handles' photo_before
    step 'the Debian package is installed, the pattern is as before' deb_installed
    step 'podman of root: ECI annotation, core, list, info, export, debug' podman_root
    step '`oci-coredump install`: pattern, sysctl.d, service, doctor' taken_over
    step 'podman of a user' podman_rootless
    step 'podman of a user with the network of pasta' podman_pasta
    step 'a quadlet' quadlet
    step '`podman kube play`' kube_play
    step 'Docker' docker
    step 'a pod of containerd by NRI: ECI annotation, names, the core stays' pods nri
    step 'a pod of containerd by the base specification' pods spec
    step 'a crash of the host is in coredumpctl' host_crash
    step '`systemctl restart systemd-sysctl` under a running container' sysctl_restarted
    step "another package's file in /usr/lib/sysctl.d: the trigger puts the pattern back" triggered
    step 'upgrade of the package under a running container' upgraded
    step '`oci-coredump-ship` as a package and as a unit: a crash is uploaded; purged' uploaded
    step 'the coredump socket: install, doctor, a crash of a container and of the host' socket_served
    step 'a hundred crashes while its service is restarted, reloaded, killed, upgraded' socket_restarted
    step 'its stop gives the pipe back, its start the socket' socket_stopped
    step 'by the configuration to the pipe and back; its file is gone: doctor has the hint' \
        socket_configured
    step 'it does not answer for a while: the pipe, then the socket again' stalled
    step 'it hangs for good: its unit starts another one' hung
    step 'it is killed again and again: the socket goes on listening' killed_often
    step "uninstalled beside systemd's own socket, which nobody serves; installed again" dead_socket
    systemctl --no-pager --plain --no-legend --failed list-units | sed 's/^/failed unit: /'
}

# --- second boot

came_back() {
    until_so 120 taken
    until_so 120 systemctl is-active web.service
    until_so 60 podman exec web true
    crash_in web
}

phase_again() {
    step 'after a reboot: the pattern is there, and the container that came back has cores' came_back
    step 'after a reboot: a crash of the host is in coredumpctl' host_crash
}

# --- third boot

removed() {
    until_so 120 systemctl is-active web.service
    dpkg --remove oci-coredump
    before
    [ ! -e $program ]
    [ ! -e /etc/sysctl.d/61-oci-coredump.conf ]
    [ ! -e /run/oci-coredump ]
    ls $store/containers/*/core-eci.*
    not systemctl is-active oci-coredump.service
    # The container goes on.
    podman exec web true
    # Engines start containers as before.
    podman run --rm --network none localhost/bb true
}

purged() {
    systemctl stop web.service
    rm /etc/containers/systemd/web.container
    systemctl daemon-reload
    podman rm --force --all
    dpkg --purge oci-coredump
    [ ! -e $store ]
    before
    loginctl disable-linger someone
    loginctl terminate-user someone
    until_so 60 userdel --remove someone
    files >"$kept/files.now"
    sysctls >"$kept/sysctls.now"
    # What a user's account changes is not ours.
    grep_out() { grep -v -E '(^| )/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?( |$)'; }
    diff <(grep_out <"$kept/files") <(grep_out <"$kept/files.now")
    diff "$kept/sysctls" "$kept/sysctls.now"
}

purged_at_once() {
    dpkg --install "$here/second.deb"
    demonstrate last podman
    ours
    dpkg --purge oci-coredump
    before
    [ ! -e $store ]
    podman rm --force --time 0 last
}

rpm_package() {
    rpm --install --nodeps "$here/package.rpm"
    oci-coredump install
    ours
    demonstrate red podman
    podman rm --force --time 0 red
    rpm --erase --nodeps oci-coredump
    before
    [ ! -e $program ]
    ls $store/containers/*/core-eci.*
    rm -r $store
}

phase_remove() {
    step 'the package is removed: the pattern is as before, cores stay, containers go on' removed
    step 'a crash of the host is in coredumpctl, once more' host_crash
    step 'the package is purged: all files and sysctls are as before the installation' purged
    step 'installed again and purged at once, under a running container' purged_at_once
    step 'the RPM package: installed, used, erased; the pattern is as before, cores stay' rpm_package
}
