#!/usr/bin/env bash
# Runs the image jobgate:check as the chart would: a read-only root, a high user id, no capability, the usual filter of system calls,
# and no mount but the configuration, the secrets and the volume. Asks it, and stops it. build.sh has made the image.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/image/tools.sh
. tests/image/tools.sh
image=jobgate:check
# there is no systemd here to run health checks by; one is run by hand
export DISABLE_HC_SYSTEMD=true

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

say "what is in it"
made="$(buildah from --pull-never "$image")"
root="$(buildah mount "$made")"
for program in sh bash dash busybox apt dpkg perl; do
  found="$(find "$root" -name "$program" \( -type f -o -type l \) -perm /111 -print -quit)"
  [ -z "$found" ] || fail "$program is in the image"
done
printf '%s files, %s\n' "$(find "$root" -type f | wc -l)" "$(du -sh --apparent-size "$root" | cut -f1)"
find "$root" -type f -size +100k -printf '%s %P\n' | sort -rn | head
[ -z "$(find "$root" -perm /6000 -print -quit)" ] || fail "a file is set-uid or set-gid"
buildah umount "$made" >/dev/null
buildah rm "$made" >/dev/null
podman image inspect "$image" --format '{{.User}} {{.HealthCheck.Test}} {{.Config.StopSignal}} {{.Labels}}'
[ "$(podman image inspect "$image" --format '{{.User}}')" = 65532:65532 ] || fail "its user is not 65532"

# The mounts of the chart, owned as fsGroup and the kubelet leave them: of root, for the group.
mounts="$work/mounts"
rm -rf "$mounts"
mkdir -p "$mounts/config" "$mounts/sources" "$mounts/data"
cat >"$mounts/config/jobgate.yaml" <<'YAML'
server: { listen: 0.0.0.0:8080, admin_listen: 0.0.0.0:9090, drain_delay: 1s, drain_timeout: 25s }
sources:
  audit:
    upstream: mindbridge
    base_url: http://127.0.0.1:8081/api
    credential: { bearer: { file: /run/secrets/jobgate/sources/audit } }
  marketing:
    upstream: supermetrics
    base_url: http://127.0.0.1:8082/enterprise/v2
    credential: { bearer: { file: /run/secrets/jobgate/sources/marketing } }
clients:
  - name: trial
    key_sha256: "5823dd9fc4d6f7525e1b508f9add85953412602dbb10cd66f5a35ab5e3c34bcb"
    sources: [audit, marketing]
store: { kind: embedded, path: /var/lib/jobgate/store }
telemetry: { log_format: json }
YAML
printf demo-mindbridge-token >"$mounts/sources/audit"
printf demo-supermetrics-key >"$mounts/sources/marketing"

common=(run --detach --pull never --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges
  --log-driver k8s-file)
running=()
end() { [ "${#running[@]}" = 0 ] || podman rm --force --depend --time 1 "${running[@]}" >/dev/null 2>&1 || true; }
trap end EXIT

# as the chart (user, group), and as a platform that chooses the ids (any user, group 0, and a supplementary group for the volume)
for ids in "65532:65532 65532" "1000670000:0 1000670000"; do
  read -r user group <<<"$ids"
  say "as $user"
  rm -rf "$mounts/data" && mkdir "$mounts/data"
  chown -R "0:$group" "$mounts/sources" "$mounts/data"
  chmod 0440 "$mounts"/sources/* && chmod 0750 "$mounts/sources" && chmod 2770 "$mounts/data"

  upstreams="$(podman "${common[@]}" --network none --user "$user" "$image" simulate --mindbridge 127.0.0.1:8081 --supermetrics 127.0.0.1:8082)"
  running+=("$upstreams")
  gateway="$(podman "${common[@]}" --network "container:$upstreams" --user "$user" --group-add "$group" \
    --volume "$mounts/config:/etc/jobgate:ro" --volume "$mounts/sources:/run/secrets/jobgate/sources:ro" \
    --volume "$mounts/data:/var/lib/jobgate" "$image")"
  running+=("$gateway")
  pid="$(podman inspect "$gateway" --format '{{.State.Pid}}')"
  inside() { nsenter --target "$pid" --net -- curl --silent --show-error --max-time 10 "$@"; }

  for _ in $(seq 300); do inside --fail http://127.0.0.1:9090/readyz >/dev/null 2>&1 && break; sleep 0.2; done
  inside --fail http://127.0.0.1:9090/readyz || { podman logs "$gateway"; fail "it is not ready"; }
  podman healthcheck run "$gateway" >/dev/null || fail "its own health check says no"
  echo "the health check of the image says yes"

  status="$(grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$pid/status" | tr -s '\t ' ' ' | tr '\n' ';')"
  echo "$status"
  case "$status" in
    "Uid: ${user%:*} "*"CapEff: 0000000000000000;CapBnd: 0000000000000000;NoNewPrivs: 1;Seccomp: 2;") ;;
    *) fail "it has more rights than the chart gives" ;;
  esac
  ! touch "/proc/$pid/root/usr/probe" 2>/dev/null || fail "its root can be written"

  answer="$(inside http://127.0.0.1:8080/graphql -H 'content-type: application/json' \
    -H 'authorization: Bearer jg_0oRfkaJ2RMECPLwxMxnYEEp4pxmREUzWSb3Ws7ykdIY' -d '{"query":
    "{ job(ref: {external: {source: \"marketing\", externalId: \"demo_sales_2026\"}}) { __typename ... on Job { state } } sources { name health } }"}')"
  echo "$answer"
  case "$answer" in *'"__typename":"SupermetricsJob"'*) ;; *) podman logs "$gateway"; fail "it does not answer" ;; esac
  [ -f "$mounts/data/store/jobs.redb" ] || fail "the store is not on the volume"

  began="$(date +%s%N)"
  podman stop --time 35 "$gateway" >/dev/null
  code="$(podman inspect "$gateway" --format '{{.State.ExitCode}}')"
  echo "stopped with $code after $((($(date +%s%N) - began) / 1000000)) ms"
  [ "$code" = 0 ] || { podman logs "$gateway"; fail "it did not end by itself"; }
  podman logs "$gateway" 2>&1 | tail -2
  end
  running=()
done
say "good"
