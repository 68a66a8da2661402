#!/usr/bin/env bash
# Every GPU kernel, every architecture and the default model on this machine's GPU against its CPU; on one without a GPU,
# on lavapipe (Debian's mesa-vulkan-drivers, see .ci/setup). Without any adapter the tests say so and check nothing.
# One cargo command for both crates: with others selected, cargo unifies features differently and builds CubeCL again.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${XDG_RUNTIME_DIR:-}" ]; then
    # The driver loader complains without one.
    XDG_RUNTIME_DIR=$(mktemp -d)
    export XDG_RUNTIME_DIR
    trap 'rm -rf "$XDG_RUNTIME_DIR"' EXIT
fi
cargo test -p imaginal-tensor -p imaginal-models --features imaginal-models/gpu --lib --test gpu
