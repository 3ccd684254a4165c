# What several scripts use; sourced, never run. Each need_* function does nothing where its need is already met,
# so that either of install.sh and test.sh may come first, and again.

script=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
root=$PWD
python=$root/.venv/bin/python
yes=''                # install.sh --yes
image='' host=''      # set by need_image, need_engine
told=''               # podkit would not find the engine by itself: see find_engine
updated=''            # apt's lists
registry=unknown      # turns `unreachable` with the first pull that fails, so that the next one costs no time

export PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT # some commands turn Ctrl-C into an ordinary failure, and those have ways round
trap 'exit 143' TERM

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$script"; exit 0; }

# Runs a command that talks too much: shows its last line every few seconds, and the end of its log if it fails.
step() { # what, command...
  local log code=0
  say "$1"
  shift
  log=$(mktemp "$work/log.XXXXXX")
  watch_log "$log" &
  local watcher=$!
  "$@" </dev/null >"$log" 2>&1 || code=$?
  kill "$watcher" 2>/dev/null || true
  wait "$watcher" 2>/dev/null || true
  ((code == 0)) || tail -n 25 "$log" >&2
  return "$code"
}

watch_log() { # file; ends with the script, also when that is killed
  local begin=$SECONDS last
  while sleep 3 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null && [ -e "$1" ]; do
    last=$(tail -c 2000 "$1" | tr '\r' '\n' | grep -v '^ *$' | tail -n 1) || true
    printf '    %3ds  %.100s\n' $((SECONDS - begin)) "${last:-...}"
  done
}

# --- this machine ----------------------------------------------------------------------------------

on_debian() { command -v apt-get >/dev/null; }
is_root() { [ "$(id -u)" = 0 ]; }
codename() { (. /etc/os-release && echo "${VERSION_CODENAME:-$ID}"); }

# At a terminal the machine's owner decides; a script or --yes has decided by calling us.
may_install() { # what
  on_debian && is_root || return 1
  if [ -z "$yes" ] && [ -t 0 ]; then
    local answer
    read -rp "Shall I install $1? [Y/n] " answer
    [[ $answer != [nN]* ]]
  else
    say "Going ahead: install $1"
  fi
}

apt_install() { # package...
  local package missing=()
  for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  # Not fatal: often it is a third party's list that fails, and the packages are found all the same.
  if [ -z "$updated" ]; then
    step "apt-get update" apt-get -q update || say "Going on with the package lists that are here"
    updated=yes
  fi
  step "apt-get install ${missing[*]}" apt-get -q install -y -o DPkg::Lock::Timeout=120 "${missing[@]}"
}

# --- the environment -------------------------------------------------------------------------------

need_environment() {
  local key found
  key=$({ cat pyproject.toml; echo "$root"; } | cksum)
  if [ "$(cat .venv/podkit-key 2>/dev/null)" = "$key" ] && has_modules "$python" docker pydantic pytest; then return; fi
  if command -v uv >/dev/null; then
    has_modules "$python" pip || step "Making .venv with uv" uv venv --clear --seed --python '>=3.11' .venv
    step "Installing podkit and its tools with uv" uv pip install --python "$python" -e '.[dev,docs]'
  else
    if ! has_modules "$python" pip; then
      found=$(find_python)
      # Debian has venv in a package of its own, and says so only after half of the work.
      if [ -z "$found" ] && may_install python3-venv; then
        apt_install python3-venv
        found=$(find_python)
      fi
      [ -n "$found" ] || die "podkit needs Python 3.11 or newer with venv (Debian: python3-venv), or uv, which brings its own"
      step "Making .venv with $found" "$found" -m venv --clear .venv
    fi
    step "Installing podkit and its tools with pip" "$python" -m pip install --progress-bar off -e '.[dev,docs]'
  fi
  echo "$key" >.venv/podkit-key
}

has_modules() { # python, module...
  "$1" -c 'import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; sys.exit(sys.version_info < (3, 11))' "${@:2}" 2>/dev/null
}

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if has_modules "$name" ensurepip; then echo "$name" && return; fi
  done
}

# --- the engine ------------------------------------------------------------------------------------

engine() { "$python" -W ignore scripts/_engine.py "$@"; }

need_engine() {
  local code=0
  find_engine 2>"$work/engine" && return || code=$?
  cat "$work/engine" >&2
  ((code == 3)) || exit 1 # there is one, but not for us: the message has the cure
  if ! may_install "the Docker engine (docker.io) and start it"; then
    die "Install Docker (Debian, Ubuntu: sudo apt-get install docker.io tini), start it, and come again."
  fi
  apt_install docker.io tini # tini is what the engine runs as --init
  start_engine
  find_engine
  say "The engine answers at $host"
}

find_engine() {
  local found
  found=$(engine find) || return
  host=${found% *}
  if [ "${found##* }" = told ]; then
    say "The docker context is stale; for podkit: export DOCKER_HOST=$host"
    export DOCKER_HOST=$host
    told=yes
  fi
}

start_engine() {
  local log=/var/log/podkit-dockerd.log pid=''
  if [ -d /run/systemd/system ]; then
    systemctl start docker || true
    log=''
  elif ! pgrep --ns $$ --nslist net -x dockerd >/dev/null; then # the package may have started it, in this network
    rm -f /var/run/docker.pid # of an engine that was killed: its number may be another program's by now
    if [ -z "$(ls -A /sys/fs/cgroup)" ] && command -v cgroupfs-mount >/dev/null; then cgroupfs-mount; fi
    setsid dockerd </dev/null >>"$log" 2>&1 &
    pid=$!
  fi
  if ! step "Waiting for the engine${log:+ (its log: $log)}" wait_for_engine "$pid"; then
    if [ -n "$log" ]; then tail -n 10 "$log" >&2; else journalctl -u docker --no-pager -n 10 >&2; fi
    die "The engine did not start; the end of its log is above."
  fi
}

wait_for_engine() { # pid, if it is known
  local end=$((SECONDS + 60))
  until engine find >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    [ -z "$1" ] || kill -0 "$1" 2>/dev/null || return 1
    sleep 0.5
  done
}

# --- images ----------------------------------------------------------------------------------------

# Sets $image: the one that is asked for if it is here or can be pulled, else one of podkit's own making from
# the distribution's packages. That never gets the name of the image whose place it takes.
pull_or_make() { # public name, own name, command to make the own one...
  local public=$1 own=$2
  shift 2
  for image in "$public" "$own"; do if engine has "$image"; then return; fi; done
  image=$public
  if [ $registry != unreachable ]; then
    if step "Pulling $image" engine pull "$image"; then return; fi
    registry=unreachable
  fi
  image=$own
  say "Making $image from the distribution's packages in place of $public, as no registry gave that"
  if ! on_debian || ! is_root; then
    die "This needs root on Debian or Ubuntu. Otherwise bring $public to the engine yourself (docker load), or set" \
      "PODKIT_DEFAULT_IMAGE to an image with sh, python3 and whoami that is there."
  fi
  "$@" "$image"
}

need_image() {
  image=${PODKIT_DEFAULT_IMAGE:-}
  if [ -z "$image" ]; then
    pull_or_make python:3.11-alpine "podkit-sandbox:$(codename)" make_debian_image sandbox python3 python-is-python3
  elif ! engine has "$image"; then
    step "Pulling $image" engine pull "$image" || die "PODKIT_DEFAULT_IMAGE=$image is not on the engine and cannot be pulled."
  fi
  export PODKIT_DEFAULT_IMAGE=$image
}

# Images that only tests need: the nginx of Example 3, and one with nothing but busybox.
need_test_images() {
  local image
  pull_or_make nginx:latest "podkit-test-nginx:$(codename)" make_debian_image test-nginx nginx-light
  export PODKIT_TEST_NGINX_IMAGE=$image
  pull_or_make busybox:latest "podkit-test-busybox:$(codename)" make_busybox_image
  export PODKIT_TEST_BUSYBOX_IMAGE=$image
}

make_debian_image() { # label, package..., name of the image
  local label=$1 name=${*: -1} packages
  packages=$(IFS=, && echo "${*:2:$#-2}")
  apt_install mmdebstrap
  distribution_sources >"$work/sources.list"
  # sh is bash, not dash, which the images that podkit is used with do not have. No documentation, no translations.
  # nginx: a container without IPv6 cannot listen on [::].
  step "Making the file system of $name (half a minute)" \
    nice mmdebstrap --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook='ln -sfT bash "$1/usr/bin/sh"' \
    --customize-hook='sed -i "/listen \[::\]/d" "$1"/etc/nginx/sites-available/default 2>/dev/null || true' \
    --customize-hook='rm -f "$1"/var/cache/debconf/*-old; find "$1/var/log" -type f -delete' \
    "$(codename)" "$work/image.tar" "$work/sources.list"
  import_image "$name" "$label" bash
}

# The mirrors that this machine uses itself, without what third parties may have added to them.
distribution_sources() {
  local id keyring
  id=$(. /etc/os-release && echo "$ID")
  keyring=/usr/share/keyrings/$id-archive-keyring.gpg
  [ -e "$keyring" ] || die "No keyring of the distribution at $keyring"
  apt-get indextargets --format "deb [signed-by=$keyring] \$(REPO_URI) \$(RELEASE) \$(COMPONENT)" \
    'Identifier: Packages' "Origin: ${id^}" | sort -u
}

make_busybox_image() { # name of the image
  local root=$work/busybox name
  mkdir -p "$work/deb" "$root"/{bin,sbin,usr/bin,usr/sbin,etc,root,proc,sys,dev,tmp}
  chmod 1777 "$root/tmp"
  (cd "$work/deb" && step "Fetching busybox" apt-get -q -o APT::Sandbox::User=root download busybox-static)
  dpkg-deb --fsys-tarfile "$work"/deb/*.deb | tar -xC "$root" --wildcards '*bin/busybox'
  for name in $("$root/bin/busybox" --list); do ln -s /bin/busybox "$root/bin/$name" 2>/dev/null || true; done
  printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/:/bin/false >"$root/etc/passwd"
  printf '%s\n' root:x:0: nogroup:x:65534: >"$root/etc/group"
  tar -cf "$work/image.tar" --owner=0 --group=0 --numeric-owner -C "$root" .
  import_image "$1" test-busybox sh
}

import_image() { # name, label, shell; from $work/image.tar
  step "Importing $1" engine import "$work/image.tar" "$1" "LABEL podkit.image=$2" "CMD [\"$3\"]" \
    'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' 'ENV LANG=C.UTF-8'
  rm -f "$work/image.tar"
}

# --- the runner of the tests -----------------------------------------------------------------------

# Sets $runner: an image with Python and podkit's wheel on top of the default image, from Dockerfile.test.
need_runner() {
  local report context=$work/context
  mkdir -p "$context/project"
  report=$(engine output "$image" python3 -c "$("$python" scripts/_wheels.py --probe)")
  step "Fetching the wheels for the runner" fetch_wheels "$report"
  cp -R "$(cat "$work/wheels")" "$context/wheels"
  step "Building podkit's wheel" "$python" -m build --wheel --no-isolation --outdir "$context/dist" .
  cp -R tests docs scripts README.md pyproject.toml Dockerfile.test "$context/project"
  mv "$context/project/Dockerfile.test" "$context"
  find "$context" -name __pycache__ -prune -exec rm -rf {} +
  tar -cf "$work/context.tar" -C "$context" .
  runner=podkit-test-runner:$(echo "$root" | cksum | cut -d' ' -f1) # another checkout has another one
  step "Building the runner" engine build "$work/context.tar" "$runner" "BASE_IMAGE=$image"
}

fetch_wheels() { "$python" scripts/_wheels.py .test-cache "$1" >"$work/wheels"; }
