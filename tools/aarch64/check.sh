#!/usr/bin/env bash
# The crates and the command checked for 64-bit ARM without a warning, and the kernels' tests run there, on an emulated
# CPU unless this machine is one. No arguments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=aarch64-unknown-linux-gnu
name=CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU
if [ "$(uname -m)" != aarch64 ]; then
    for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
        command -v "$tool" >/dev/null || { echo "aarch64: no $tool; .ci/setup installs it on Debian" >&2; exit 1; }
    done
    export "${name}_LINKER=aarch64-linux-gnu-gcc"
fi
if [ -z "${IMAGINAL_AARCH64_DEBIAN:-}" ] && compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null; then
    echo "aarch64: building with $(rustc --version)"
    build() { cargo "$@" --target "$target"; }
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ]; then
    # Debian's Rust comes without the target's standard library, but with its source.
    echo "aarch64: building with Debian's $(/usr/bin/rustc --version) and its standard library from source"
    build() { RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc /usr/bin/cargo "$1" --target "$target" -Zbuild-std=std "${@:2}"; }
else
    echo "aarch64: no standard library for $target: 'rustup target add $target', or .ci/setup on Debian" >&2
    exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
build check -p imaginal 2>&1 | tee "$log"
if grep -q '^warning' "$log"; then
    echo "aarch64: warnings" >&2
    exit 1
fi

if [ "$(uname -m)" = aarch64 ]; then
    build test -p imaginal-kernels
    exit
fi
kernels() {
    echo "aarch64: kernels on $1"
    export "${name}_RUNNER=qemu-aarch64 -cpu $1 -L /usr/aarch64-linux-gnu"
    build test -p imaginal-kernels --lib -- "${@:2}"
}
# The tests go through all sets that the CPU has. Those without and with dot products of bytes must be told apart; what
# they compute is compared on a CPU with everything, but for one test that takes too long there and has shorter siblings.
kernels cortex-a72 isa:: simd:: bytes::tests::every_block
kernels neoverse-n1 isa:: simd:: bytes::tests::every_block
kernels max --skip packed::tests::every_format
