#!/bin/sh
# A root of Debian sid for AArch64 as a disk image: `root.sh DIRECTORY FLAVOUR...`, as root. Makes
# DIRECTORY/disk.img, and vmlinuz-FLAVOUR and initrd-FLAVOUR of the kernels linux-image-FLAVOUR,
# unless they are there. The packages are unpacked and not configured: nothing of the other
# architecture is run here, so neither qemu-user nor binfmt_misc is needed.
set -eu
directory=$1
shift

packages=base-files,base-passwd,libc6,libc-bin,bash,dash,coreutils,util-linux,mount,login,passwd
packages=$packages,procps,kmod,busybox-static,grep,sed,gawk,findutils,tar,gzip,xz-utils,zstd
packages=$packages,diffutils,hostname,binutils,gcc,g++,libc6-dev,libc6-dbg,make,gdb,strace,dwz
packages=$packages,podman,runc,crun,conmon,catatonit,ca-certificates

made=$(cat "$directory/packages" 2>/dev/null) || :
kernels=
for flavour; do
    kernels=$kernels,linux-image-$flavour
    [ -e "$directory/vmlinuz-$flavour" ] || made=
done
[ "$made" = "$packages" ] && exit 0
mkdir -p "$directory"
root=$directory/root
rm -rf "$root" "$directory/packages" "$directory"/vmlinuz-* "$directory"/initrd-*
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
    grep '/debian/$' | head -n 1)
echo 'Unpacking Debian sid for AArch64 (some minutes, once)'
mmdebstrap --quiet --variant=extract --mode=root --architectures=arm64 \
    --aptopt='Acquire::Check-Valid-Until "false"' --include="$packages$kernels" \
    sid "$root" "${archive:?this machine does not use an archive of Debian}"

# What the packages' scripts would have done.
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
ln -sf gawk "$root/usr/bin/awk"
cp integration/hosts/arm64/init "$root/init"

for flavour; do
    version=$(ls "$root/usr/lib/modules" | grep "^[^-]*-$flavour\$")
    depmod -b "$root" "$version"
    tree=$directory/initrd
    rm -rf "$tree"
    mkdir -p "$tree/bin" "$tree/modules" "$tree/root" "$tree/dev" "$tree/proc"
    cp "$root/usr/bin/busybox" "$tree/bin/busybox"
    for module in virtio_pci virtio_blk virtio_console ext4 overlay; do
        modprobe -d "$root" -S "$version" --show-depends "$module" |
            sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++' | while read -r module; do
        name=$(basename "$module" .xz)
        case $module in
        *.xz) xz -dc "$module" >"$tree/modules/$name" ;;
        *) cp "$module" "$tree/modules/$name" ;;
        esac
        echo "$name" >>"$tree/modules/list"
    done
    cat >"$tree/init" <<'END'
#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
while read -r module; do busybox insmod "/modules/$module"; done </modules/list
until [ -b /dev/vda ]; do busybox sleep 1; done
busybox mount -t ext4 /dev/vda /root
busybox umount /dev
exec busybox switch_root /root /init
END
    chmod 755 "$tree/init"
    (cd "$tree" && find . | cpio --create --quiet --format=newc) >"$directory/initrd-$flavour"
    cp "$root/usr/lib/modules/$version/vmlinuz" "$directory/vmlinuz-$flavour"
done
mke2fs -q -t ext4 -d "$root" -m 0 "$directory/disk.img.new" 4G
rm -rf "$root" "$directory/initrd"
mv "$directory/disk.img.new" "$directory/disk.img"
echo "$packages" >"$directory/packages"
