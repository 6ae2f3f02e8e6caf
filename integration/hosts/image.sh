#!/bin/sh
# A whole Debian host as a disk image: `image.sh SUITE DIRECTORY`, as root. Makes DIRECTORY/disk.img,
# vmlinuz and initrd unless they are there. What a person would have on a host for containers, and
# one unit that runs what the second disk holds: see run.sh.
set -eu
suite=$1 directory=$2

packages=systemd,systemd-sysv,udev,dbus,dbus-user-session,linux-image-cloud-amd64,initramfs-tools
packages=$packages,procps,iproute2,kmod,jq,util-linux,iptables,ca-certificates,apparmor
packages=$packages,systemd-coredump,gdb,busybox-static,rpm
packages=$packages,podman,catatonit,crun,runc,conmon,netavark,aardvark-dns,passt,uidmap
packages=$packages,containerd,docker.io,docker-cli,python3-grpcio

[ "$(cat "$directory/packages" 2>/dev/null)" = "$packages" ] && exit 0
mkdir -p "$directory"
root=$directory/root
rm -rf "$root" "$directory"/disk.img*
# The archive that this machine uses.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
    grep '/debian/$' | head -n 1)
echo "Making a host of Debian $suite (some minutes, once)"
mmdebstrap --quiet --variant=minbase --mode=root \
    --aptopt='Acquire::Check-Valid-Until "false"' --include="$packages" \
    "$suite" "$root" "${archive:?this machine does not use an archive of Debian}"
echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
cat >"$root/etc/systemd/system/hosts-test.service" <<'END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh -c 'mkdir -p /run/hosts-test && tar -x -f /dev/vdb -C /run/hosts-test && exec bash /run/hosts-test/inside.sh'
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
[Install]
WantedBy=multi-user.target
END
ln -s ../hosts-test.service "$root/etc/systemd/system/multi-user.target.wants/"
# What systemd does at the first boot after an update of /usr.
touch "$root/etc/.updated" "$root/var/.updated"
# Emulated, the profiles of a hundred programs that are not on this host take minutes to compile.
mkdir -p "$root/etc/apparmor.d/disable"
for profile in "$root"/etc/apparmor.d/*; do
    case ${profile##*/} in
    podman | runc | crun | *pasta | *passt | systemd-coredump | unix-chkpwd | unprivileged_userns) ;;
    *) [ ! -f "$profile" ] || ln -sf "../${profile##*/}" "$root/etc/apparmor.d/disable/" ;;
    esac
done
cp "$root"/boot/vmlinuz-* "$directory/vmlinuz"
cp "$root"/boot/initrd.img-* "$directory/initrd"
mke2fs -q -t ext4 -d "$root" -m 0 "$directory/disk.img.new" 6G
rm -rf "$root"
mv "$directory/disk.img.new" "$directory/disk.img"
echo "$packages" >"$directory/packages"
