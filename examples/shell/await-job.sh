#!/usr/bin/env bash
# Waits until a job is terminal and prints it as JSON, over REST. It needs curl and jq.
#   await-job.sh SOURCE/EXTERNAL_ID [SECONDS]     exit code 0: SUCCEEDED, 1: another terminal state, 2: unknown
# JOBGATE_URL is the gateway, JOBGATE_KEY the client key, if the gateway has clients.
set -euo pipefail
url=${JOBGATE_URL:-http://127.0.0.1:8080}
deadline=$((SECONDS + ${2:-3600}))
headers=(-H 'prefer: wait=25')
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
# the key is not an argument: other users of the machine can read those
if [ -n "${JOBGATE_KEY:-}" ]; then
  (umask 077 && printf 'authorization: Bearer %s\n' "$JOBGATE_KEY" >"$folder/key")
  headers+=(-H "@$folder/key")
fi

while [ "$SECONDS" -lt "$deadline" ]; do
  status=$(curl -sS --max-time 40 -D "$folder/head" -o "$folder/body" -w '%{http_code}' "${headers[@]}" "$url/v1/jobs/$1") || status=000
  pause=$(sed -n 's/^retry-after: *\([0-9]*\).*/\1/Ip' "$folder/head" 2>/dev/null || true)
  case $status in
    200)
      if [ "$(jq .isTerminal "$folder/body")" = true ]; then
        cat "$folder/body"
        [ "$(jq -r .state "$folder/body")" = SUCCEEDED ] || exit 1
        exit 0
      fi
      # it has waited already
      pause=0 ;;
    000 | 408 | 429 | 5??) echo "no answer for $1 yet (HTTP $status)" >&2 ;;
    404) [ -n "$pause" ] || { jq -r .detail "$folder/body" >&2; exit 2; } ;;
    *) cat "$folder/body" >&2; exit 2 ;;
  esac
  sleep "${pause:-2}"
done
echo "$1 is not terminal in time" >&2
exit 2
