#!/usr/bin/env bash
# Builds the images and runs the main job inside them: two RTSP cameras -> box -> matcher -> acks.
# With docker where an engine answers, else with buildah (which needs root, and debootstrap where
# no registry can be reached). The job's embeddings travel over plain loopback, on this machine only;
# mutual TLS between the services of compose.yaml is tried by tests/integration/test_compose.py.
#
#   ENGINE=docker|buildah  instead of finding out
#   EDGE_MODELS_DIR        models to mount at /models; needed until weights are inside
#   PIP_CONF, CA_BUNDLE    a package index of your own and its certificates, for building only: they
#                          stay out of the image. Unset: what pip on this machine uses. The
#                          certificates appear as /etc/ssl/build-ca.pem
#   MIRRORS                folders with packages that PIP_CONF names (buildah only)
#   SECONDS_TO_RUN         how long the box runs (25)
#   MAX_EDGE_MB            how large the box's image may be, unpacked (600)
#   WORK                   where buildah keeps its store (a folder under /var/tmp)
set -euo pipefail
cd "$(dirname "$0")/.."
tag=${TAG:-dev}
seconds=${SECONDS_TO_RUN:-25}
max_edge_mb=${MAX_EDGE_MB:-600}
work=${WORK:-/var/tmp/edge-reid-images}
base=docker.io/library/python:3.11-slim-bookworm
models=${EDGE_MODELS_DIR:-}

say() { echo "image: $*"; }
die() { echo "image: $*" >&2; exit 1; }

engine=${ENGINE:-}
if [ -z "$engine" ]; then
  if docker info >/dev/null 2>&1; then engine=docker
  elif command -v buildah >/dev/null; then engine=buildah
  else die "no docker engine answers and buildah is not installed; apt-get install buildah debootstrap"
  fi
fi
if [ -n "$models" ]; then
  models=$(realpath "$models")
elif ! ls models/weights/*.onnx >/dev/null 2>&1; then
  die "no models: set EDGE_MODELS_DIR to a folder with a detector and an embedder"
fi

results=$(mktemp -d)
chmod 755 "$results"
cleanup=()
on_exit() {
  for command in "${cleanup[@]}"; do eval "$command" >/dev/null 2>&1 || true; done
  rm -rf "$results"
}
trap on_exit EXIT

pip_conf=${PIP_CONF:-} ca_bundle=${CA_BUNDLE:-} mirrors=${MIRRORS:-}
if [ -z "$pip_conf" ]; then
  while read -r what path; do
    case $what in
      ca) ca_bundle=${ca_bundle:-$path} ;;
      folder) mirrors="$mirrors $path" ;;
    esac
  done < <(python3 deploy/pip_settings.py "$results")
  pip_conf=$results/pip.conf
fi
secrets=(--secret "id=pip_conf,src=$(realpath "$pip_conf")")
[ -n "$ca_bundle" ] && secrets+=(--secret "id=ca_bundle,src=$(realpath "$ca_bundle")")

# ---- the two engines: build TARGET, size TARGET, inside TARGET COMMAND, background, foreground ----
if [ "$engine" = docker ]; then
  build() { DOCKER_BUILDKIT=1 docker build -q "${secrets[@]}" --target "$1" -t "edge-reid/$1:$tag" . ; }
  inside() { docker run --rm --network host --entrypoint sh --user 0 "edge-reid/$1:$tag" -c "$2"; }
  background() { # TARGET ARGUMENTS...
    local target=$1; shift
    docker run -d --rm --network host --read-only --tmpfs /tmp --name "edge-reid-$target-$$" \
      "edge-reid/$target:$tag" "$@" >/dev/null
    cleanup+=("docker rm -f edge-reid-$target-$$")
  }
  log_of() { docker logs "edge-reid-$1-$$" 2>&1; }
  edge() {
    docker run --rm --network host --read-only --tmpfs /tmp --name "edge-reid-edge-$$" \
      -e "EDGE_METRICS=$metrics" ${models:+-v "$models:/models:ro"} "edge-reid/edge:$tag" "$@"
  }
  healthy() { [ "$(docker inspect -f '{{.State.Health.Status}}' "edge-reid-edge-$$")" = healthy ]; }
else
  [ "$(id -u)" = 0 ] || die "buildah with --isolation chroot needs root here"
  mkdir -p "$work"
  buildah() { command buildah --root "$work/store" --runroot "$work/run" "$@"; }
  mounts=()
  for folder in $mirrors; do mounts+=(-v "$folder:$folder:ro"); done
  if ! buildah inspect --type image "$base" >/dev/null 2>&1 && ! buildah pull -q "$base" >/dev/null 2>&1; then
    say "no registry answers: making $base of Debian's own packages"
    rm -rf "$work/base"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$work/base" >/dev/null
    rm -rf "$work"/base/var/lib/apt/lists/* "$work"/base/var/cache/apt/* \
      "$work"/base/usr/share/{doc,man,locale,info}
    container=$(buildah from scratch)
    buildah add -q "$container" "$work/base" / >/dev/null
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit -q "$container" "$base" >/dev/null
    buildah rm "$container" >/dev/null
    rm -rf "$work/base"
  fi
  build() {
    buildah bud -q --isolation chroot --pull-never --format docker --layers "${mounts[@]}" \
      "${secrets[@]}" --target "$1" -t "edge-reid/$1:$tag" -f Dockerfile . >/dev/null
  }
  started() { # TARGET -> a container of it, removed at the end
    container=$(buildah from --pull-never "edge-reid/$1:$tag")
    cleanup+=("buildah rm $container")
  }
  inside() { # often called in a subshell, where cleanup would be forgotten
    local container code=0
    container=$(buildah from --pull-never "edge-reid/$1:$tag")
    buildah run --isolation chroot --user 0 "$container" -- sh -c "$2" || code=$?
    buildah rm "$container" >/dev/null
    return "$code"
  }
  entrypoint() { buildah inspect --type image --format '{{range .OCIv1.Config.Entrypoint}}{{.}} {{end}}' "edge-reid/$1:$tag"; }
  background() {
    local target=$1; shift
    started "$target"
    # it ends when its standard input does, and so with this script
    mkfifo "$results/$target.stdin"
    # shellcheck disable=SC2046
    buildah run --isolation chroot "$container" -- $(entrypoint "$target") "$@" --exit-with-parent \
      <"$results/$target.stdin" >"$results/$target.log" 2>&1 &
    exec {end}>"$results/$target.stdin"
    cleanup=("exec $end>&-; wait $!" "${cleanup[@]}")
  }
  log_of() { cat "$results/$1.log"; }
  edge() {
    buildah run --isolation chroot --env "EDGE_METRICS=$metrics" \
      ${models:+-v "$models:/models:ro"} "$box" -- edge-run "$@"
  }
  healthy() { # nothing calls a HEALTHCHECK here: call its command
    local check
    check=$(buildah inspect --type image --format '{{index .Docker.Config.Healthcheck.Test 3}}' "edge-reid/edge:$tag")
    buildah run --isolation chroot --env "EDGE_METRICS=$metrics" "$box" -- python -c "$check"
  }
fi

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_for() { # TARGET TEXT
  for _ in $(seq 150); do
    log_of "$1" | grep -q "$2" && return
    sleep 0.2
  done
  log_of "$1" >&2
  die "the container of $1 did not say '$2' within 30 s"
}

for target in edge matcher rtsp-sample; do
  say "building $target with $engine ..."
  build "$target"
done

# ---- what is inside, and what is not ---------------------------------------------------------
for target in edge matcher; do
  mb=$(inside "$target" 'du -smx / 2>/dev/null | cut -f1')
  say "$target: $mb MB unpacked"
  if [ "$target" = edge ] && [ "$mb" -gt "$max_edge_mb" ]; then
    die "edge is larger than $max_edge_mb MB"
  fi
  # shellcheck disable=SC2016
  unwanted=$(inside "$target" '
    for tool in gcc cc g++ make pip pip3; do command -v $tool; done
    find / -xdev \( -name __pycache__ -o -path "*/site-packages/torch" -o -path "*/site-packages/pip" \
      -o -path "*/site-packages/*/tests" -o -name "*.pytest_cache" -o -path "/root/.cache/*" \) -print
    true')
  [ -z "$unwanted" ] || die "$target holds what it should not: $unwanted"
done

# ---- the main job -----------------------------------------------------------------------------
rtsp_port=$(free_port) matcher_port=$(free_port) metrics_port=$(free_port)
say "two cameras -> box -> matcher, $seconds s, over plain loopback, as the images' own user"
background rtsp-sample --host 127.0.0.1 --port "$rtsp_port" \
  --mount /gate=/clips/gate.mp4 --mount /hall=/clips/hall.mp4
background matcher serve --listen "127.0.0.1:$matcher_port" --data-dir /var/lib/edge-reid \
  --metrics "127.0.0.1:$metrics_port"
wait_for rtsp-sample READY
metrics=127.0.0.1:$(free_port)
if [ "$engine" = buildah ]; then started edge; box=$container; fi
edge --rtsp "rtsp://127.0.0.1:$rtsp_port/gate" --rtsp "rtsp://127.0.0.1:$rtsp_port/hall" \
  --matcher "127.0.0.1:$matcher_port" --site image --edge-id box-1 --duration "$seconds" \
  --summary json >"$results/summary.json" 2>"$results/edge.log" &
running=$!
health="did not answer"
while kill -0 "$running" 2>/dev/null; do
  if healthy 2>/dev/null; then health=passed; break; fi
  sleep 1
done
code=0
wait "$running" || code=$?
if [ "$code" != 0 ]; then
  cat "$results/edge.log" >&2
  die "edge-run ended with $code"
fi
say "the health check $health"
[ "$health" = passed ] || die "see HEALTHCHECK in the Dockerfile"
python3 - "$results/summary.json" <<'PYTHON'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    summary = json.loads(file.read().splitlines()[-1])
cameras, sightings, size = summary["cameras"], summary["sightings"], summary["bytes"]
for name, camera in cameras.items():
    print(f"image: {name}: {camera['frames_analysed']} frames, {camera['tracklets']} tracklets, "
          f"{camera['embeddings']} embeddings")
print(f"image: {sightings['acked']} of {sightings['committed']} sightings acked by the matcher; "
      f"{size['wire_out']} bytes out for {size['video_in']} bytes of video")
failed = [name for name, camera in cameras.items() if not camera["frames_analysed"]]
if failed or len(cameras) != 2:
    sys.exit(f"image: no frames from {', '.join(failed) or 'a camera'}")
if not sightings["acked"] or sightings["acked"] != sightings["committed"]:
    sys.exit("image: not every sighting was acked")
PYTHON
say "the main job ran in the images"
