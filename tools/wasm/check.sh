#!/usr/bin/env bash
# The crates from numeric to generate as a WebAssembly module under Node: the greedy text must be that of the native
# command. Usage: check.sh [MODEL.gguf]; $IMAGINAL_BIN names a native binary that is built already.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
model=$(realpath "${1:-$root/models/default/model.gguf}")
tokens=40
# Beginnings of Rust code, which the default model knows, and a prompt beyond ASCII.
prompts=('pub fn parse(' 'use std::collections::' $'impl fmt::Display for Error {\n    fn fmt(' '// Größe → 3 ≤ n: 你好')

[ -s "$model" ] || { echo "wasm: $model is missing or empty; name another model as the argument" >&2; exit 1; }
command -v node >/dev/null || { echo "wasm: no node; .ci/setup installs it" >&2; exit 1; }

# Relative to the caller's directory, as cargo takes it.
export CARGO_TARGET_DIR
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The versions that the workspace is tested with.
cp "$root/Cargo.lock" "$here/Cargo.lock"
target=wasm32-unknown-unknown
cd "$here"
# RUSTFLAGS would replace the flags that .cargo/config.toml has for this target.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
if [ -z "${IMAGINAL_WASM_DEBIAN:-}" ] && compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null; then
    echo "wasm: building with $(rustc --version)"
    cargo build --release --target "$target"
elif [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && command -v wasm-ld >/dev/null; then
    # Debian's Rust comes without the target's standard library, but with its source.
    echo "wasm: building with Debian's $(/usr/bin/rustc --version) and its standard library from source"
    RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld \
        /usr/bin/cargo build --release --target "$target" -Zbuild-std=std,panic_abort
else
    echo "wasm: no standard library for $target: 'rustup target add $target', or .ci/setup on Debian" >&2
    exit 1
fi
module=$CARGO_TARGET_DIR/$target/release/imaginal_wasm_check.wasm
cd "$root"

# The tests before this step have built the command without --release; the numbers are the same.
native() { if [ -n "${IMAGINAL_BIN:-}" ]; then "$IMAGINAL_BIN" "$@"; else cargo run -q -p imaginal -- "$@"; fi; }

failed=0
for prompt in "${prompts[@]}"; do
    node "$here/run.mjs" "$module" "$model" "$prompt" "$tokens" >"$scratch/wasm"
    native run "$model" -p "$prompt" --temperature 0 -n "$tokens" >"$scratch/native" 2>"$scratch/log" ||
        { cat "$scratch/log" >&2; exit 1; }
    if [ "$(wc -c <"$scratch/native")" -le 1 ]; then
        echo "wasm: no text after $(printf %q "$prompt"), which compares nothing" >&2
        failed=1
    elif cmp -s "$scratch/wasm" "$scratch/native"; then
        echo "wasm: the same $(wc -c <"$scratch/native") bytes after $(printf %q "$prompt")"
    else
        echo "wasm: another text after $(printf %q "$prompt") (-native +wasm):" >&2
        diff -u "$scratch/native" "$scratch/wasm" >&2 || true
        failed=1
    fi
done

# What is no model must come back as an error with a text, not as a trap.
head -c 1000 "$model" >"$scratch/cut.gguf"
if node "$here/run.mjs" "$module" "$scratch/cut.gguf" 'fn' 1 >/dev/null 2>"$scratch/log"; then
    echo "wasm: half a header of a model was accepted" >&2
    failed=1
elif grep -q 'RuntimeError' "$scratch/log" || ! grep -q '^run.mjs: model' "$scratch/log"; then
    echo "wasm: a truncated model gave no proper error: $(cat "$scratch/log")" >&2
    failed=1
fi
exit "$failed"
