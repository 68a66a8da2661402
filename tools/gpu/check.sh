#!/usr/bin/env bash
# The GPU kernels and the models on a GPU device against the CPU. Any adapter will do; on a machine without a GPU,
# lavapipe (Debian: mesa-vulkan-drivers). Without an adapter the tests say SKIPPED.
set -euo pipefail
cd "$(dirname "$0")/../.."
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$(mktemp -d)}"
cargo test -p imaginal-tensor -p imaginal-models --features imaginal-models/gpu gpu
