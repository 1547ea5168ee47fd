# Sourced: compiling what packages hold, so that two builds of one commit are equal wherever they run.

# The time of the last commit stands in for the time of the build.
dist_epoch() {
  git -C "$1" log -1 --format=%ct
}

dist_compile() {
  local repo=$1 target_dir=$2 profile=$3
  local cargo_home=${CARGO_HOME:-$HOME/.cargo} flags
  local build=(cargo build --quiet --locked --profile "$profile" -p delegate-agent -p runner-agent -p gitspace-agent
    -p gitspaces-control-plane -p gitspaces-gateway -p gitspace)
  if [ "$profile" = dev ]; then
    # As every other debug build, so that it is there already.
    env -C "$repo" CARGO_TARGET_DIR="$target_dir" "${build[@]}"
    return
  fi
  # Folders of this machine are written as those of a package's sources; cargo leaves these flags out of its hashes.
  # The first two as in .cargo/config.toml, which the variable takes the place of.
  flags="-C target-feature=+crt-static --cfg getrandom_backend=\"linux_getrandom\""
  flags+=" --remap-path-prefix=$cargo_home=/usr/src/cargo"
  flags+=" --remap-path-prefix=$target_dir=/usr/src/target"
  flags+=" --remap-path-prefix=$repo=/usr/src/gitspaces"
  env -C "$repo" -u CARGO_ENCODED_RUSTFLAGS \
    RUSTFLAGS="$flags" CFLAGS="-ffile-prefix-map=$cargo_home=/usr/src/cargo -ffile-prefix-map=$target_dir=/usr/src/target" \
    CARGO_TARGET_DIR="$target_dir" CARGO_INCREMENTAL=0 "${build[@]}"
}

DIST_TRIPLE=x86_64-unknown-linux-gnu
DIST_PACKAGES=(delegate-agent runner-agent gitspaces-control-plane gitspaces-gateway gitspace)

# The two packers, compiled once.
dist_tools() {
  local dir=$1
  export PATH=$dir/bin:$PATH
  command -v cargo-deb >/dev/null || CARGO_TARGET_DIR=$dir/target cargo install --quiet --locked --root "$dir" cargo-deb@3.8.0
  command -v cargo-generate-rpm >/dev/null || CARGO_TARGET_DIR=$dir/target cargo install --quiet --locked --root "$dir" cargo-generate-rpm@0.21.1
}
